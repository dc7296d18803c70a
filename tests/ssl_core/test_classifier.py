"""A trained network in one file: what it says, and that it classifies as it did when measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ssl_core.data.config import DataConfig
from ssl_core.data.digits import load_training_images
from ssl_core.data.prepare import prepare
from ssl_core.errors import UserError
from ssl_core.training.classifier import Card, Classifier, weights_to_bytes
from ssl_core.training.config import TrainingConfig
from ssl_core.training.loop import Training

RECORD = {
    "algorithm": "supervised",
    "max_steps": 30,
    "batch_size": 10,
    "num_labels": 20,
    "num_validation": 200,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a little; return the file, the training and what it was trained on."""
    shared = prepare(DataConfig(num_labels=20, num_validation=200))
    training = Training(TrainingConfig.from_record(RECORD), shared)
    training.run(30)
    card = Card(
        model=training.config.model,
        class_names=shared.class_names,
        channels=1,
        image_size=8,
        normalisation=shared.normalisation,
    )
    report = training.report()
    path = tmp_path_factory.mktemp("trained") / "weights.safetensors"
    path.write_bytes(weights_to_bytes(training.evaluated_network, card))
    return path, card, report, shared


def test_it_classifies_the_validation_images_as_they_were_measured(trained):
    path, card, report, shared = trained
    classifier = Classifier.from_file(path)
    assert classifier.card == card
    probabilities = classifier.probabilities(shared.images[shared.validation])
    assert probabilities.shape == (200, 10)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(200), abs=1e-5)
    right = probabilities.argmax(axis=1) == shared.validation_labels
    assert np.array_equal(right, report.evaluated.correct)


def test_the_same_network_is_always_the_same_bytes(trained):
    path, card, _, _ = trained
    classifier = Classifier.from_file(path)
    assert weights_to_bytes(classifier.network, card) == path.read_bytes()


def test_files_are_read_as_a_search_reads_them(trained, tmp_path):
    path, card, _, _ = trained
    images = load_training_images().images[:3]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image[0]).save(file)
    colour = tmp_path / "colour.jpg"
    Image.new("RGB", (40, 24), (200, 10, 90)).save(colour)
    classifier = Classifier.from_file(path)
    answers = classifier.classify([*files, str(colour)])
    probabilities = classifier.probabilities(images)
    for (name, probability), row in zip(answers[:3], probabilities, strict=True):
        assert name == card.class_names[int(row.argmax())]
        assert probability == pytest.approx(row.max(), abs=1e-6)
    assert answers[3][0] in card.class_names
    assert classifier.classify([]) == []


def test_other_shapes_types_and_files_are_refused(trained, tmp_path):
    classifier = Classifier.from_file(trained[0])
    with pytest.raises(UserError, match=r"uint8 of shape \(N, 1, 8, 8\)"):
        classifier.probabilities(np.zeros((2, 3, 32, 32), dtype=np.uint8))
    with pytest.raises(UserError, match="float32"):
        classifier.probabilities(np.zeros((2, 1, 8, 8), dtype=np.float32))
    text = tmp_path / "notes.png"
    text.write_text("no image")
    with pytest.raises(UserError, match=r"notes\.png.*PNG or JPEG"):
        classifier.classify([text])
    with pytest.raises(UserError, match=r"a list of image files; give \['a\.png'\]"):
        classifier.classify("a.png")


def test_files_that_hold_no_network_of_ours_are_refused(trained, tmp_path):
    with pytest.raises(UserError, match="cannot be read as weights"):
        Classifier.from_file(tmp_path / "missing.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(trained[0].read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be read as weights"):
        Classifier.from_file(torn)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="does not say what network"):
        Classifier.from_file(Path(foreign))
