"""How many trials share a GPU, measured on a node of a real Ray whose GPU is only counted, not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import dataclasses, json
import ray
from tests.tune_ssl.fakes import tiny_images
from tests.tune_ssl.test_packing import RECORD
from tune_ssl.on_ray.packing import measured_on_a_node
from tune_ssl.packing import PackingError, Shapes

ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
shapes = Shapes.of(tiny_images())
found = measured_on_a_node([RECORD], shapes, cpus=1, gpus=1, most=2)
try:
    measured_on_a_node([RECORD | {"model": "nonsense"}], shapes, cpus=1, gpus=1, most=2)
except PackingError as error:
    message = str(error)
print(json.dumps([dataclasses.asdict(found["ict"]), message]))
"""


def test_a_node_measures_remembers_and_says_what_failed(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    packing, message = json.loads(ended.stdout.splitlines()[-1])
    assert packing["trials"] in (1, 2)
    assert packing["steps_per_second"] > 0
    [kept] = json.loads((tmp_path / "tune-ssl" / "packing.json").read_text()).values()
    assert kept == packing
    assert "could not be measured" in message
    assert "nonsense" in message
