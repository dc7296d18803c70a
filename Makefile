# Each target makes what it needs: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CIFAR-10 as files, train/<class>/*, for `make bench` on a machine with a GPU.
IMAGES ?= cifar10
INSTALLED := $(VENV)/.installed

.PHONY: install demo test check lint types unit slow upstream bench clean

install: $(INSTALLED)

# About two minutes and 6.4 GB: torch brings its CUDA libraries. constraints.txt pins what was tested.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	rm -rf demo
	$(BIN)/tune-ssl --alg ict --trials 50 --output demo --name ict
	$(BIN)/tune-ssl export ict --output demo --top 3 --file demo/best.yaml
	@echo "train the best: $(BIN)/tune-ssl train demo/best.yaml"

# Format, lint, types, unit tests and contracts: minutes.
check: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/pytest -q -n 2 --dist worksteal -m 'not slow and not upstream'

slow: $(INSTALLED)
	$(BIN)/pytest -q -n 2 --dist loadfile -m 'slow' --durations=12

test: check slow

# Defects of Ray and Optuna that code of ours works around: a pass here says that code can go.
upstream: $(INSTALLED)
	$(BIN)/pytest -q -m 'upstream'

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.driver_cost
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.suggestions cost --trials 1000 --repeats 5
	$(BIN)/python -m benchmarks.suggestions regret --spaces ict --trials 200 --seeds 2
	$(BIN)/python -m benchmarks.scale --trials 200 --slots 40 --reopen 1000
	$(BIN)/python -m benchmarks.step_time --turns 3
	$(BIN)/python -m benchmarks.memory --turns 3 --steps 4
	$(BIN)/python -m benchmarks.trial_start
	$(BIN)/python -m benchmarks.vmapped
	$(BIN)/python -m benchmarks.vmapped --device cuda --settings "digits,cifar10" --precision bfloat16
	$(BIN)/python -m benchmarks.trial_start --device cuda
	$(BIN)/python -m benchmarks.step_time --turns 3 --device cuda --settings "digits,cifar10,cifar10 in batches of 512"
	$(BIN)/python -m benchmarks.step_time --turns 3 --device cuda --compiled --settings cifar10
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.parity --modes eager,captured
	$(BIN)/python -m benchmarks.time_to_accuracy --images $(IMAGES)

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
