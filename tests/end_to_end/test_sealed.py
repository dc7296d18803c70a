"""The test images are sealed: replaced by noise, a search does the same to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_core.data.digits import load_test_images, load_training_images
from tests.end_to_end.command import environment, outcome_of, run

pytestmark = pytest.mark.slow

SEARCH = ("--alg", "ict", "--max-steps", "18", "--trials", "4", "--concurrency", "1")
QUIET = ("--no-dashboard", "--format", "json")

NOISY = """
import numpy as np
import sklearn.datasets
from ssl_core.data.digits import test_indices
from tune_ssl.cli import main

load = sklearn.datasets.load_digits

def noisy():
    bunch, noise = load(), np.random.default_rng(0)
    bunch.images[test_indices()] = noise.integers(0, 17, (600, 8, 8))
    bunch.target[test_indices()] = noise.integers(0, 10, 600)
    return bunch

sklearn.datasets.load_digits = noisy
if __name__ == "__main__":  # processes that open the test set import this, too
    main()
"""


def folder_of_digits(folder: Path, *, noise: bool) -> Path:
    """Write training and test digits as pictures, the test ones as they are or as noise."""
    generator = np.random.default_rng(0)
    training, test = load_training_images(), load_test_images()
    pixels, labels = test.images[:100], test.labels[:100]
    if noise:
        pixels = generator.integers(0, 256, pixels.shape, dtype=np.uint8)
        labels = generator.integers(0, 10, len(labels))
    for part, images, classes in (
        ("train", training.images[:400], training.labels[:400]),
        ("test", pixels, labels),
    ):
        for number, (image, label) in enumerate(zip(images, classes, strict=True)):
            place = folder / part / str(label) / f"{number:04}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(place)
    return folder


def assert_same(one: Path, other: Path) -> None:
    """Compare parameters, values and states of all trials, and the weights that were kept."""
    assert outcome_of(one) == outcome_of(other)
    weights = [
        {path.parent.name: path.read_bytes() for path in folder.glob("trials/*/*.safetensors")}
        for folder in (one, other)
    ]
    assert weights[0] == weights[1] != {}


def run_noisy(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where the test digits are noise."""
    script = cwd / "noisy.py"
    script.write_text(NOISY)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_noise_in_the_place_of_the_digits_for_testing_changes_nothing(tmp_path: Path):
    ended = run_noisy(*SEARCH, *QUIET, "--name", "noise", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    whole = run(*SEARCH, *QUIET, "--name", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert_same(tmp_path / "runs/noise", tmp_path / "runs/whole")


def test_nor_does_it_change_what_confirm_retrains_or_whom_it_names(tmp_path: Path):
    main = (*SEARCH, *QUIET, "--scheduler", "none", "--name", "main")
    assert run(*main, cwd=tmp_path).returncode == 0
    confirm = ("confirm", "main", "--top", "2", "--seeds", "3", *QUIET)
    noise = run_noisy(*confirm, "--name", "noise", cwd=tmp_path)
    assert noise.returncode == 0, noise.stderr
    whole = run(*confirm, "--name", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr

    folders = [tmp_path / "runs/main/confirm" / name for name in ("noise", "whole")]
    assert_same(*folders)
    winners = [(folder / "winner.json").read_text() for folder in folders]
    assert winners[0] == winners[1]
    tested = [json.loads(ended.stdout) for ended in (noise, whole)]
    assert [one["test"]["opening"] for one in tested] == [1, 1]  # two test sets, once each
    assert tested[0]["test"]["sha256"] != tested[1]["test"]["sha256"]
    in_noise, in_whole = ([row["test"]["mean"] for row in one["configurations"]] for one in tested)
    assert all(0.05 < mean < 0.15 for mean in in_noise)
    assert all(mean > 0.15 for mean in in_whole)


def test_nor_do_a_folder_s_test_images(tmp_path: Path):
    for name in ("whole", "noise"):
        folder = folder_of_digits(tmp_path / name, noise=name == "noise")
        ended = run(
            *(*SEARCH, *QUIET, "--name", name, "--dataset", "folder", "--image-size", "8"),
            *("--data-dir", str(folder), "--labels", "20", "--validation", "100"),
            *("--model", "wrn-10-1"),
            cwd=tmp_path,
        )
        assert ended.returncode == 0, ended.stderr
    assert_same(tmp_path / "runs/noise", tmp_path / "runs/whole")
