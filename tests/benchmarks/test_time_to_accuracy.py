"""Time to an accuracy: what is told of two curves, and that both loops are trained and measured alike."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks import time_to_accuracy
from benchmarks.step_time import random_images


def curve(accuracy, seconds):
    return {"steps": [10, 20, 30], "seconds": seconds, "accuracy": accuracy}


def test_times_are_to_what_both_reached_and_neither_had_at_once():
    curves = {
        "plain": curve([0.12, 0.31, 0.36], [10.0, 20.0, 30.0]),
        "ours": curve([0.17, 0.29, 0.40], [2.0, 4.0, 6.0]),
    }
    found = time_to_accuracy.figures(curves)
    assert found["times_faster"] == {"0.20": 5.0, "0.25": 5.0, "0.30": 3.33, "0.35": 5.0}
    assert found["difference"] == 0.04, "of the last third of the measurements"
    told = time_to_accuracy.as_text(3, {"curves": curves, **found})
    assert "seed 3: plain 36.0% after 30 steps and 30 s, ours 40.0% after 30 steps and 6 s" in told
    assert "0.30: 3.33 x" in told


def test_both_are_trained_and_measured_on_the_same_images():
    images = random_images(200, size=8)
    options = argparse.Namespace(
        model="wrn-10-1", batch_size=4, precision="float32", threads=1, device="cpu"
    )
    options.every, options.steps = 1, 2
    curves = time_to_accuracy.trained_in_turns(time_to_accuracy.loops(images, 0, options), options)
    counts = len(images.validation)
    for found in curves.values():
        assert found["steps"] == [1, 2]
        assert found["seconds"][0] < found["seconds"][1]
        shares = np.array(found["accuracy"]) * counts
        assert np.allclose(shares, shares.round(), atol=counts * 1e-4)
