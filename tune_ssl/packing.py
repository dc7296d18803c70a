"""How many trials share a GPU: measured once for a training's shapes and a kind of GPU, then remembered.

One training of a small network leaves most of a large GPU idle. 1, 2, 4, ... of them are trained side by
side for some seconds, each in a process of its own as in a search, until more of them bring no more
steps per second, do not fit into the memory, or lack cores. The images are random pixels: a step takes
as long whatever they show.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ssl_core.data.prepare import SplitImages
from ssl_core.data.recipe import Augmentation, Normalisation, Preprocessing, Whitening
from tune_ssl import machine

SECONDS = 4.0
"""For which the trainings run side by side."""
WARM_UP_STEPS = 10
WORTHWHILE = 1.05
"""So much more must twice the trials bring, or they are not worth their memory."""
MEMORY_USED = 0.9
"""Share of a GPU's memory that trials may fill; the rest serves peaks that were not measured."""
PROCESS_MEGABYTES = 600
"""What CUDA takes for each process beside its tensors."""
SECONDS_TO_START = 180.0


@dataclass(frozen=True, kw_only=True)
class Packing:
    """So many trainings side by side: steps per second of all, and the memory that one takes."""

    trials: int
    steps_per_second: float
    megabytes: int


class PackingError(RuntimeError):
    """Not even one training could be measured; the message says why."""


def best_packing(measured: Sequence[Packing]) -> Packing:
    """Return the fewest trials that come within ``WORTHWHILE`` of the highest rate."""
    highest = max(one.steps_per_second for one in measured)
    enough = (one for one in measured if one.steps_per_second * WORTHWHILE >= highest)
    return min(enough, key=lambda one: one.trials)


def measure_packings(
    run: Callable[[int], Packing | None], *, most: int, total_megabytes: float
) -> list[Packing]:
    """Measure 1, 2, 4, ... trainings at once, as long as it pays.

    Args:
        run: measures so many at once; None where they did not fit.
        most: trainings at once that have cores.
        total_megabytes: memory of the device.

    Raises:
        PackingError: not even one fits, or one alone could not be run.
    """
    measured: list[Packing] = []
    trials = 1
    while trials <= most:
        try:
            found = run(trials)
        except PackingError:
            if not measured:
                raise
            break  # fewer could be measured
        if found is None:
            break
        measured.append(found)
        if (
            len(measured) > 1
            and found.steps_per_second < WORTHWHILE * measured[-2].steps_per_second
        ):
            break
        if 2 * trials * (found.megabytes + PROCESS_MEGABYTES) > MEMORY_USED * total_megabytes:
            break
        trials *= 2
    if not measured:
        raise PackingError("a training alone does not fit into the GPU's memory")
    return measured


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What of the images a step's time and memory depend on."""

    channels: int
    side: int
    num_classes: int
    max_shift: int
    flip: bool
    noise: float
    whitens: bool
    megabytes: int

    @classmethod
    def of(cls, shared: SplitImages) -> Shapes:
        """Return those of a search's images."""
        how = shared.augmentation
        return cls(
            channels=shared.images.shape[1],
            side=shared.images.shape[2],
            num_classes=shared.num_classes,
            max_shift=how.max_shift,
            flip=how.flip,
            noise=how.noise,
            whitens=isinstance(shared.normalisation, Whitening),
            megabytes=shared.images.nbytes // 2**20,
        )

    def _preprocessing(self) -> Preprocessing:
        if not self.whitens:
            return Normalisation(mean=(127.5,) * self.channels, std=(64.0,) * self.channels)
        inputs = self.channels * self.side**2
        return Whitening(mean=np.zeros(inputs, np.float32), matrix=np.eye(inputs, dtype=np.float32))

    def random_images(self, count: int = 1000) -> SplitImages:
        """Return random pixels of these shapes."""
        generator = np.random.default_rng(0)
        labels = (np.arange(count) % self.num_classes).astype(np.int64)
        places = np.arange(count)
        few = max(self.num_classes, count // 10)
        size = (count, self.channels, self.side, self.side)
        return SplitImages(
            images=generator.integers(0, 256, size, dtype=np.uint8),
            labeled=places[:few],
            unlabeled=places[:-few],
            validation=places[-few:],
            labels=labels[:few],
            validation_labels=labels[-few:],
            class_names=tuple(map(str, range(self.num_classes))),
            augmentation=Augmentation(max_shift=self.max_shift, flip=self.flip, noise=self.noise),
            normalisation=self._preprocessing(),
            skipped=(),
            fingerprint="",
        )


def trials_per_device(
    records: Iterable[Mapping[str, Any]], shapes: Shapes, *, device_name: str, most: int
) -> dict[str, Packing]:
    """Return the best packing of each training, measured here or remembered, by method.

    Args:
        records: flat configurations, one for each method of a search.
        device_name: kind of the GPU, for the memory of earlier measurements.
        most: trainings at once that have cores.

    Raises:
        PackingError: a training could not be run.
    """
    found = {}
    for record in records:
        key = _key(record, shapes, device_name, most)
        known = _remembered(key)
        if known is None:
            known = best_packing(
                measure_packings(
                    partial(side_by_side, record, shapes),
                    most=most,
                    total_megabytes=memory_of(str(record["device"])),
                )
            )
            _remember(key, known)
        found[str(record["algorithm"])] = known
    return found


def side_by_side(
    record: Mapping[str, Any], shapes: Shapes, trials: int, *, seconds: float = SECONDS
) -> Packing | None:
    """Train so many at once, each in a process of its own; None where the memory does not suffice.

    Raises:
        PackingError: a process failed for another reason; the message is its last line.
    """
    task = json.dumps({"record": dict(record), "shapes": asdict(shapes), "seconds": seconds})
    with ExitStack() as stack:
        running = []
        for _ in range(trials):
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tune_ssl.packing", task],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            stack.callback(_end, process)
            running.append((process, errors))
        lines = [_answer(process, errors) for process, errors in running]  # ready, or no memory
        if OUT_OF_MEMORY in lines:
            return None
        for process, _ in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        lines = [_answer(process, errors) for process, errors in running]
        if OUT_OF_MEMORY in lines:
            return None
    results = [json.loads(line) for line in lines]
    return Packing(
        trials=trials,
        steps_per_second=round(sum(result["steps_per_second"] for result in results), 2),
        megabytes=max(result["megabytes"] for result in results) + shapes.megabytes,
    )


OUT_OF_MEMORY = "out of memory"
READY = "ready"


def _answer(process: subprocess.Popen[str], errors: Any) -> str:
    assert process.stdout is not None
    said_something, _, _ = select.select([process.stdout], [], [], SECONDS_TO_START)
    if not said_something:
        raise PackingError(
            f"a training could not be measured: it said nothing for {SECONDS_TO_START:g} s"
        )
    line = process.stdout.readline().strip()
    if line:
        return line
    process.wait(timeout=SECONDS_TO_START)
    errors.seek(0)
    said = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
    raise PackingError(f"a training could not be measured: {said[-1]}")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def _train(task: Mapping[str, Any], answers: TextIO) -> None:
    """Train for some seconds once told to, and say how many steps that were. A process's whole life."""
    from ssl_core.training.config import TrainingConfig
    from ssl_core.training.device import set_up_process
    from ssl_core.training.loop import Training

    config = TrainingConfig.from_record(task["record"])
    set_up_process(config.threads)
    training = Training(config, Shapes(**task["shapes"]).random_images())
    training.run(WARM_UP_STEPS)
    training.report()  # its memory counts: two networks and large batches
    assert training.finite is not None  # waits for the device
    print(READY, file=answers, flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    training.run(config.max_steps, seconds=task["seconds"])
    assert training.finite is not None
    spent = time.monotonic() - began
    rate = (training.step - WARM_UP_STEPS) / spent
    megabytes = peak_megabytes(config.device)
    found = {"steps_per_second": rate, "megabytes": megabytes}
    print(json.dumps(found), file=answers, flush=True)


def peak_megabytes(device: str) -> int:
    """Return the most memory so far: of a GPU for its last training, else of the whole process."""
    from ssl_core.training.device import peak_device_bytes

    return (peak_device_bytes(device) or machine.peak_resident_bytes()) // 2**20


def memory_of(device: str) -> float:
    """Return a device's memory in megabytes; a CPU's is the host's, without end where that is unknown."""
    from ssl_core.training.device import device_bytes

    total = device_bytes(device)
    if total is None:
        memory = machine.memory_bytes()
        total = memory[0] if memory is not None else sys.maxsize
    return total / 2**20


def _key(record: Mapping[str, Any], shapes: Shapes, device_name: str, most: int) -> str:
    of_the_step = (
        "algorithm",
        "model",
        "batch_size",
        "unlabeled_ratio",
        "precision",
        "threads",
        "optimizer",
    )
    parts = {name: record[name] for name in of_the_step} | asdict(shapes)
    # Some of these add a view or a pass.
    further = ("batch_norm_momentum", "normalisation", "parameters", "compile")
    parts |= {name: record.get(name) for name in further}
    found = machine.versions()
    parts |= {name: found[name] for name in ("tune-ssl", "torch")}
    parts |= {"device": device_name, "most": most, "mps": machine.mps_runs()}
    return json.dumps(parts, sort_keys=True)


def memory_path() -> Path:
    """Return the file of earlier measurements."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tune-ssl" / "packing.json"


def _kept() -> dict[str, Any]:
    try:
        kept = json.loads(memory_path().read_text())
    except (OSError, ValueError):  # not there, or damaged: all is measured anew
        return {}
    return kept if isinstance(kept, dict) else {}


def _remembered(key: str) -> Packing | None:
    try:
        return Packing(**_kept()[key])
    except (KeyError, TypeError):
        return None


def _remember(key: str, packing: Packing) -> None:
    path = memory_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.{os.getpid()}")
    written.write_text(json.dumps(_kept() | {key: asdict(packing)}, indent=1))
    written.replace(path)


def _main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    try:
        _train(json.loads(sys.argv[1]), answers)
    except Exception as error:
        if not machine.is_out_of_memory(error):
            raise
        print(OUT_OF_MEMORY, file=answers, flush=True)


if __name__ == "__main__":
    _main()
