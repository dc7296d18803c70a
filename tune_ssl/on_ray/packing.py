"""Measures on a node with a GPU how many trials should share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from tune_ssl.machine import gpu_names, processor_name
from tune_ssl.packing import Packing, PackingError, Shapes, trials_per_device


def measured_on_a_node(
    records: Sequence[Mapping[str, Any]], shapes: Shapes, *, cpus: float, gpus: float, most: int
) -> dict[str, Packing]:
    """Return the best packing of each training, by method; see ``trials_per_device``.

    Raises:
        PackingError: a training could not be run.
    """
    task = _measure.options(num_cpus=cpus, num_gpus=gpus)
    try:
        found: dict[str, Packing] = ray.get(task.remote(list(records), shapes, most))
    except RayTaskError as error:
        if isinstance(error.cause, PackingError):
            raise error.cause from None
        raise
    return found


def _name_of_the_gpu() -> str | None:
    """Return the kind of the GPU that this task was given, of a node that may have several kinds."""
    names, given = gpu_names(), ray.get_gpu_ids()
    numbers = [int(one) for one in given if str(one).isdigit()]
    return names[numbers[0]] if numbers and numbers[0] < len(names) else next(iter(names), None)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _measure(records: list[Mapping[str, Any]], shapes: Shapes, most: int) -> dict[str, Packing]:
    device_name = _name_of_the_gpu() or processor_name()
    return trials_per_device(records, shapes, device_name=device_name, most=most)
