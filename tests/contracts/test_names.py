"""The names users type are those of the implementations, and imports point one way."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import search_spaces
import ssl_core
import tune_ssl.statistics
from search_spaces import SEARCH_SPACES
from ssl_core import names
from ssl_core.algorithms import ALGORITHMS
from ssl_core.data.catalogue import DATASET_CARDS
from ssl_core.data.sources import SOURCES
from ssl_core.divergences import DIVERGENCES
from ssl_core.published import PUBLISHED, published_divergence
from ssl_core.schedules import LEARNING_RATE_SCHEDULES
from ssl_core.training.config import TrainingConfig
from tests.mutants import MUTANTS, occurrences

ROOT = Path(__file__).parents[2]


def test_names_equal_the_keys_of_the_implementations():
    assert tuple(ALGORITHMS) == names.ALGORITHM_NAMES
    assert tuple(DIVERGENCES) == names.DIVERGENCE_NAMES
    assert tuple(SOURCES) == names.DATASET_NAMES
    assert tuple(DATASET_CARDS) == names.DATASET_NAMES
    assert tuple(LEARNING_RATE_SCHEDULES) == names.LR_SCHEDULE_NAMES


def test_every_algorithm_has_a_space_and_published_values():
    assert tuple(SEARCH_SPACES) == tuple(ALGORITHMS)
    assert {row.algorithm for row in PUBLISHED} == set(ALGORITHMS)


def test_every_algorithm_has_a_reference_of_its_own_and_a_line_in_the_changelog():
    references = (ROOT / "tests/ssl_core/test_algorithm_references.py").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text().lower().replace("-", "_").replace(" ", "_")
    for name in ALGORITHMS:
        assert f"\ndef test_{name}_" in references, f"no reference of {name}"
        assert name in changelog, f"{name} is not in CHANGELOG.md"


def test_an_algorithm_and_its_space_live_in_files_of_its_name():
    for name, entry in ALGORITHMS.items():
        assert entry.Config.__module__ == f"ssl_core.algorithms.{name}"
        assert entry.Algorithm.__module__ == f"ssl_core.algorithms.{name}"
        assert SEARCH_SPACES[name].__module__ == f"search_spaces.{name}"


def test_short_names_stand_for_algorithms_and_hide_none():
    assert set(names.ALGORITHM_SHORT_NAMES.values()) <= set(ALGORITHMS)
    assert not set(names.ALGORITHM_SHORT_NAMES) & set(ALGORITHMS)


def test_any_stands_for_four_known_divergences():
    assert names.SEARCHED_DIVERGENCE_NAMES == ("mse", "l1", "kl", "js")
    assert set(names.SEARCHED_DIVERGENCE_NAMES) <= set(DIVERGENCES)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_published_divergence_is_a_known_one_and_none_for_supervised(name):
    divergence = published_divergence(name)
    if name == "supervised":
        assert divergence is None
    else:
        assert divergence in DIVERGENCES


@pytest.mark.parametrize(
    ("field", "allowed"),
    [
        ("optimizer", names.OPTIMIZER_NAMES),
        ("lr_schedule", names.LR_SCHEDULE_NAMES),
        ("evaluate", names.EVALUATED_NETWORKS),
        ("metric", names.METRIC_NAMES),
        ("precision", names.PRECISIONS),
    ],
)
def test_every_listed_name_makes_a_configuration(field, allowed):
    for value in allowed:
        config = TrainingConfig.from_record({"algorithm": "pi_model", field: value})
        assert getattr(config, field) == value


# Imports, each in a process of its own.


def loaded_by(modules: list[str]) -> set[str]:
    """Return the top-level packages that importing these modules loads in a fresh process."""
    return {name.partition(".")[0] for name in modules_loaded_by(modules)}


def modules_loaded_by(modules: list[str]) -> set[str]:
    """Return all modules that importing these loads in a fresh process."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    return set(json.loads(output))


def modules_of(package) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found)]


def test_ssl_core_loads_no_search_and_no_cluster():
    modules = modules_of(ssl_core)
    assert {"ssl_core.training.loop", "ssl_core.algorithms.vat"} < set(modules)
    loaded = loaded_by(modules)
    assert "torch" in loaded
    assert not loaded & {"optuna", "ray", "search_spaces", "tune_ssl"}


def test_search_spaces_load_neither_torch_nor_optuna_nor_ray():
    modules = modules_of(search_spaces)
    assert {"search_spaces.joint", "search_spaces.vat"} < set(modules)
    loaded = loaded_by(modules)
    assert "ssl_core" in loaded
    assert not loaded & {"torch", "optuna", "ray", "tune_ssl"}


def test_what_a_command_line_needs_at_once_loads_neither_torch_nor_numpy():
    loaded = loaded_by(
        [
            "ssl_core",
            "ssl_core.names",
            "ssl_core.errors",
            "ssl_core.published",
            "ssl_core.data.catalogue",
        ]
    )
    assert not loaded & {"torch", "numpy"}


def test_reading_and_splitting_images_loads_no_torch():
    assert "torch" not in loaded_by(["ssl_core.data.prepare", "ssl_core.data.sources"])


def test_statistics_are_pure_and_quick_to_load():
    modules = modules_of(tune_ssl.statistics)
    assert {"tune_ssl.statistics.cells", "tune_ssl.statistics.selection"} < set(modules)
    loaded = modules_loaded_by(modules)
    assert "scipy.special" in loaded
    assert not loaded & {"torch", "optuna", "ray", "search_spaces", "scipy.stats"}


def imports_of(path: Path) -> set[str]:
    """Return the modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_only_on_ray_imports_ray():
    importing = {
        path.relative_to(ROOT).parts[:2]
        for package in ("ssl_core", "search_spaces", "tune_ssl")
        for path in (ROOT / package).rglob("*.py")
        if any(name.split(".")[0] == "ray" for name in imports_of(path))
    }
    assert importing == {("tune_ssl", "on_ray")}


def test_one_module_opens_test_images():
    """And the data sets' own; whatever trains or chooses has no way to them."""
    naming = {
        str(path.relative_to(ROOT))
        for package in ("ssl_core", "search_spaces", "tune_ssl")
        for path in (ROOT / package).rglob("*.py")
        if "load_test_images" in path.read_text()
    }
    assert naming == {
        *("ssl_core/data/digits.py", "ssl_core/data/folder.py", "ssl_core/data/sources.py"),
        "tune_ssl/sealed.py",
    }


def test_nothing_below_the_views_imports_them():
    """Workflows put views to use; the engine knows none."""
    engine = [*(ROOT / "tune_ssl").glob("*.py"), *(ROOT / "tune_ssl" / "on_ray").glob("*.py")]
    upwards = {
        path.name
        for path in engine
        if any(
            name.startswith(("tune_ssl.views", "tune_ssl.workflows")) for name in imports_of(path)
        )
    }
    assert upwards == {"cli.py"}


def test_the_readme_counts_the_mutants():
    assert f"against {len(MUTANTS)} deliberate mistakes" in " ".join(
        (ROOT / "README.md").read_text().split()
    )


def test_every_mutant_still_has_its_text():
    """A mutant whose text is gone catches nothing; running them all takes minutes."""
    assert [mutant.name for mutant in MUTANTS if occurrences(mutant) != 1] == []
