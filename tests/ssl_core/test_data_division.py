"""The labels of a draw divided anew: the union stays, and nothing measured on is trained on."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.data.config import DataConfig
from ssl_core.data.digits import load_training_images
from ssl_core.data.prepare import all_labels, divided, prepare
from ssl_core.data.splits import divide_anew, draw_folds, labels_of_other_folds
from ssl_core.errors import UserError

CLASSES = np.repeat([0, 1, 2], [12, 7, 5])
LABELED = np.arange(24) % 3 == 0
DIVISIONS = [
    {"division_seed": 0},
    {"division_seed": 2**32 - 1},
    {"division_seed": 4, "folds": 2, "fold": 1},
    {"division_seed": 4, "folds": 5, "fold": 5},
]


def config(**division) -> DataConfig:
    return DataConfig(num_labels=20, num_validation=100, **division)


@pytest.fixture(scope="module")
def drawn():
    return prepare(config())


def per_class(labels, classes=10):
    return np.bincount(labels, minlength=classes).tolist()


class TestDivideAnew:
    def test_every_class_keeps_its_numbers(self):
        for seed in range(20):
            found = divide_anew(CLASSES, LABELED, seed)
            assert per_class(CLASSES[found], 3) == per_class(CLASSES[LABELED], 3)
            assert np.array_equal(found, np.unique(found))

    def test_every_label_is_trained_on_equally_often(self):
        counts = np.zeros(24)
        for seed in range(3000):
            counts[divide_anew(CLASSES, LABELED, seed)] += 1
        expected = (np.bincount(CLASSES[LABELED]) / np.bincount(CLASSES))[CLASSES]
        assert counts / 3000 == pytest.approx(expected, abs=0.05)

    def test_a_division_is_the_same_for_ever(self):
        assert divide_anew(CLASSES, LABELED, 1).tolist() == [2, 3, 4, 10, 15, 16, 17, 20]
        assert draw_folds(CLASSES, 3, 1).tolist() == [
            1,
            2,
            1,
            2,
            3,
            3,
            3,
            2,
            2,
            1,
            1,
            3,
            1,
            3,
            2,
            1,
            3,
            2,
            1,
            2,
            2,
            3,
            1,
            3,
        ]


class TestFolds:
    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_they_are_stratified_and_of_a_size(self, count):
        folds = draw_folds(CLASSES, count, seed=0)
        sizes = np.bincount(folds)[1:]
        assert sizes.sum() == 24
        assert sizes.max() - sizes.min() <= 1
        for label in range(3):
            own = np.bincount(folds[label == CLASSES], minlength=count + 1)[1:]
            assert own.min() >= 1
            assert own.max() - own.min() <= 1

    def test_more_than_the_rarest_class_has_are_refused(self):
        with pytest.raises(UserError, match=r"6 folds .* a class has 5 labels; allowed: 2 to 5"):
            draw_folds(CLASSES, 6, seed=0)

    def test_labels_to_train_on_are_of_other_folds(self):
        folds = draw_folds(CLASSES, 5, seed=3)
        for fold in range(1, 6):
            found = labels_of_other_folds(CLASSES, LABELED, folds, fold, seed=3)
            assert (folds[found] != fold).all()
            assert per_class(CLASSES[found], 3) == per_class(CLASSES[LABELED], 3)

    def test_where_a_class_has_too_few_all_of_them_are(self):
        folds = draw_folds(CLASSES, 2, seed=3)
        found = labels_of_other_folds(CLASSES, np.ones(24, dtype=bool), folds, 1, seed=3)
        assert np.array_equal(found, np.flatnonzero(folds == 2))


class TestDivided:
    @pytest.mark.parametrize("division", DIVISIONS)
    def test_no_label_is_used_that_was_not_paid_for(self, drawn, division):
        own = divided(drawn, config(**division))
        known, _ = all_labels(drawn)
        used = np.concatenate([own.labeled, own.validation])
        assert len(np.unique(used)) == len(used)
        assert np.isin(used, known).all()
        if "folds" not in division:
            assert (len(own.labeled), len(own.validation)) == (20, 100)
        assert not np.array_equal(own.labeled, drawn.labeled)

    @pytest.mark.parametrize("division", DIVISIONS)
    def test_labels_are_those_of_their_images(self, drawn, division):
        own, truth = divided(drawn, config(**division)), load_training_images().labels
        assert np.array_equal(own.labels, truth[own.labeled])
        assert np.array_equal(own.validation_labels, truth[own.validation])

    @pytest.mark.parametrize("division", DIVISIONS)
    def test_the_pool_is_every_image_that_is_not_measured_on(self, drawn, division):
        own = divided(drawn, config(**division))
        everything = np.arange(len(drawn.images))
        assert np.array_equal(own.unlabeled, np.setdiff1d(everything, own.validation))
        pixels = drawn.images[own.unlabeled].astype(float)
        assert own.normalisation.mean[0] == pytest.approx(pixels.mean())

    def test_prepared_for_a_configuration_it_is_the_same(self, drawn):
        for division in DIVISIONS:
            own, alone = divided(drawn, config(**division)), prepare(config(**division))
            assert own.fingerprint == alone.fingerprint
            assert own.normalisation == alone.normalisation
        assert len({prepare(config(**division)).fingerprint for division in DIVISIONS}) == 4

    def test_without_a_division_nothing_changes(self, drawn):
        assert divided(drawn, config()) is drawn

    def test_folds_judge_every_label_once(self, drawn):
        parts = [
            divided(drawn, config(division_seed=9, folds=5, fold=fold)).validation
            for fold in range(1, 6)
        ]
        assert np.array_equal(np.sort(np.concatenate(parts)), all_labels(drawn)[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"division_seed": -1}, "division_seed is -1"),
        ({"folds": 5, "fold": 1}, "division_seed is None, folds 5 and fold 1"),
        ({"division_seed": 0, "folds": 5}, "fold None"),
        ({"division_seed": 0, "folds": 1, "fold": 1}, "folds is 1"),
        ({"division_seed": 0, "folds": 5, "fold": 6}, "fold is 6"),
    ],
)
def test_half_a_division_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        DataConfig(**given)


def test_a_record_speaks_of_a_division_only_where_there_is_one():
    assert "fold" not in config().to_record()
    assert config(division_seed=1).to_record() == config().to_record() | {"division_seed": 1}
    assert config(division_seed=1).undivided == config()
