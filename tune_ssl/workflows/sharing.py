"""How many trials of a search share a GPU, where that is to be measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search_spaces.joint import Suggestion
from ssl_core.data.prepare import SplitImages
from ssl_core.errors import UserError
from tune_ssl.packing import PackingError, Shapes
from tune_ssl.run import SEARCHED, RunConfig
from tune_ssl.views.messages import say

if TYPE_CHECKING:
    from tune_ssl.on_ray.cluster import Cluster

LONGER_THAN_MEASURED = 10**9
"""Steps."""


def with_measured_share(
    config: RunConfig, cluster: Cluster, shared: SplitImages, console: Console
) -> RunConfig:
    """Return the settings with the share of a GPU at which all trials together go fastest.

    Of several methods the one that fits least often decides: trials of a search have equal shares.

    Raises:
        UserError: a training could not be run on a GPU.
    """
    from tune_ssl.on_ray.packing import measured_on_a_node

    say(console, "measuring how many trials share a GPU; a later search will remember it.")
    most = max(1, int(cluster.cpus / max(1.0, cluster.gpus) / config.cpus_per_trial))
    records = [_shape_record(config, algorithm) for algorithm in config.alg]
    try:
        found = measured_on_a_node(
            records, Shapes.of(shared), cpus=config.cpus_per_trial, gpus=1.0, most=most
        )
    except PackingError as error:
        raise UserError(
            f"gpus-per-trial is auto, and {error}; allowed: a number above 0; give --gpus-per-trial 1 to see "
            "what a trial says."
        ) from error
    for algorithm, packing in found.items():
        say(
            console,
            f"{algorithm}: {packing.trials} at once on a GPU, {packing.steps_per_second:g} steps/s together, "
            f"{packing.megabytes} MB each",
        )
    trials = min(packing.trials for packing in found.values())
    return dataclasses.replace(config, gpus_per_trial=1.0 / trials)


def _shape_record(config: RunConfig, algorithm: str) -> dict[str, Any]:
    """Return a training that takes as long as a method's trials do."""
    weight = 1.0 if config.entropy_min == SEARCHED else float(config.entropy_min)
    # With such a weight some methods take a pass more.
    parameters = {"entropy_weight": weight} if weight and algorithm != "supervised" else {}
    suggestion = Suggestion(algorithm=algorithm, divergence=None, parameters=parameters)
    return config.trial_record(suggestion, config.seed) | {"max_steps": LONGER_THAN_MEASURED}
