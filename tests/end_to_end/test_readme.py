"""The README's commands, run in their order on a small folder of images, with small budgets."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.command import environment, run

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text()
SMALL = "--trials 3 --max-steps 18 --model wrn-10-1 --batch-size 8 --image-size 8 --no-dashboard"
COMPARISON = "--trials 2 --max-steps 18 --seeds 3 --no-dashboard"
SEARCHES_HERE = ("--alg ict --trials 50", "--dataset folder")
NEEDS_OTHER_MACHINES = ("--gpus-per-trial", "--address")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("console")).splitlines()
    return [line.removeprefix("$ tune-ssl ") for line in lines if line.startswith("$ tune-ssl ")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Make the README's folder, with two classes that differ in brightness; return its parent."""
    cwd = tmp_path_factory.mktemp("readme")
    generator = np.random.default_rng(0)
    for part, count in (("labeled/cat", 8), ("labeled/dog", 8), ("unlabeled", 20)):
        folder = cwd / "photos" / part
        folder.mkdir(parents=True)
        for number in range(count):
            brightness = {"labeled/cat": 60, "labeled/dog": 190}.get(part, 60 + 130 * (number % 2))
            pixels = generator.normal(brightness, 20, (12, 10, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04d}.jpg")
    return cwd


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 8


def test_every_command_does_what_it_says(photos: Path) -> None:
    for command in commands():
        arguments = shlex.split(command)
        if any(flag in command for flag in NEEDS_OTHER_MACHINES):
            arguments.append("--help")  # refuses a flag there is not
        elif command.startswith("compare"):
            arguments += COMPARISON.split()
        elif any(words in command for words in SEARCHES_HERE):
            size = SMALL if "folder" in command else SMALL.replace("--image-size 8", "")
            arguments += size.split()
        ended = run(*arguments, cwd=photos)
        assert ended.returncode == 0, f"tune-ssl {command}\n{ended.stderr}"
    assert (photos / "best.yaml").exists()
    assert (photos / "trained" / "weights.safetensors").exists()
    assert not list((photos / "runs" / "mine").rglob("error.txt"))

    (snippet,) = blocks("python")
    ended = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=photos,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    name, probability = ended.stdout.split()
    assert name in ("cat", "dog")
    assert 0.5 <= float(probability) <= 1.0


def test_files_it_points_to_are_there() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    for target in linked:
        if not target.startswith("http"):
            assert (Path(__file__).parents[2] / target).exists(), target


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"@[A-Z]+@", README)
