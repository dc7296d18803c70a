"""Cross-validation by confirm: folds of the search's labels judge, and the test set stays closed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ssl_core.errors import UserError
from tests.tune_ssl.fakes import (
    Run,
    draws_of,
    drive_without_cluster,
    small_config,
    tiny_images,
    tree,
)
from tests.tune_ssl.test_confirm import Confirming
from tests.tune_ssl.test_confirmation import trial_of
from tests.tune_ssl.test_retraining import table_of
from tune_ssl import cli
from tune_ssl.cross_validation import cross_validation
from tune_ssl.retraining import fold_draws
from tune_ssl.statistics.folds import corrected_interval
from tune_ssl.study import RESULT
from tune_ssl.trial import pack_correct, unpack_correct
from tune_ssl.views import cross_validated
from tune_ssl.workflows import confirm as workflow
from tune_ssl.workflows import retrain

pytestmark = pytest.mark.usefixtures("no_fsync")

FOLDS = {"cross_validate": 2, "seeds": 2}
NAME = "top2-folds2x2"


@pytest.fixture
def confirming(tmp_path, monkeypatch):
    search = Run(tmp_path / "runs" / "search", small_config(metric="accuracy", trials=8)).finish()
    return Confirming(search, monkeypatch, NAME)


class TestCommand:
    def test_every_label_judges_once_a_repeat_and_no_test_image_is_opened(self, confirming):
        ended = confirming(FOLDS)
        assert ended.exit_code == 0
        assert confirming.sealed.opened == 0
        assert confirming.openings() == []
        assert not (confirming.directory.path / "winner.json").exists()
        result = ended.result
        assert result["images"] == [*range(10), *range(20, 30)]
        for row in result["configurations"]:
            judged = [
                (one["division_seed"], one["fold"], len(unpack_correct(one["correct"])))
                for one in row["retrainings"]
            ]
            assert judged == [(d, fold, 10) for d in (1000, 1001) for fold in (1, 2)]
        assert json.loads((confirming.directory.path / "result.json").read_text()) == result

    def test_no_weights_are_kept(self, confirming):
        confirming(FOLDS)
        assert not list(confirming.directory.path.rglob("*.safetensors"))

    def test_a_folder_without_test_images_can_be_cross_validated(self, confirming, monkeypatch):
        def refuse(dataset, data_dir):
            raise UserError("no test/; allowed: test/; add it.")

        monkeypatch.setattr(workflow, "check_has_test_images", refuse)
        with pytest.raises(UserError):
            confirming.prepared()
        assert confirming(FOLDS).exit_code == 0

    def test_killed_it_goes_on_and_says_the_same(self, confirming, tmp_path, monkeypatch):
        whole = confirming(FOLDS).result
        search = Run(tmp_path / "again" / "search", small_config(metric="accuracy", trials=8))
        again = Confirming(search.finish(), monkeypatch, NAME)
        with pytest.raises(KeyboardInterrupt):
            again(FOLDS, interrupted_after=15, lost=True)
        result = again(FOLDS).result
        for one, other in zip(whole["configurations"], result["configurations"], strict=True):
            assert one["fold_scores"] == other["fold_scores"]

    def test_from_the_command_line(self, confirming, monkeypatch, capsys):
        monkeypatch.chdir(confirming.search.directory.path.parents[1])
        monkeypatch.setattr(retrain, "run_job", drive_without_cluster)
        small = ("confirm", "search", "--top", "2", "--cross-validate", "2", "--seeds", "2")
        before = tree(confirming.search.directory.path)
        assert cli._run([*small, "--dry-run"], debug=False) == 0
        assert "2 folds of the search's own labels, 2 times" in capsys.readouterr().out
        assert tree(confirming.search.directory.path) == before
        assert cli._run([*small, "--format", "markdown"], debug=False) == 0
        out = capsys.readouterr().out
        for text in ("Not sealed, hence optimistic", "No test image was opened", "points from"):
            assert text in out
        folder = f"search/confirm/{NAME}"
        assert cli._run([*small, "--format", "json"], debug=False) == 0
        result = capsys.readouterr().out
        assert cli._run(["resume", folder, "--format", "json"], debug=False) == 0
        assert capsys.readouterr().out == result
        assert cli._run([*small, "--format", "csv"], debug=False) == 0
        assert capsys.readouterr().out.startswith("configuration,")

    @pytest.mark.parametrize(
        ("wishes", "words"),
        [
            ({"cross_validate": 1}, "cross-validate is 1"),
            ({"cross_validate": 3, "seeds": 1}, "a class has 2 labels"),
            ({"cross_validate": 2, "seeds": 1}, "allowed: at least 3"),
        ],
    )
    def test_what_cannot_be_done_is_refused(self, confirming, wishes, words):
        with pytest.raises(UserError, match=words):
            confirming.prepared(**wishes)


def finished(accuracies):
    """Return a table on two folds, twice, and trials that classify so many of a fold's ten images."""
    table = table_of([f"rank {place}" for place in range(1, len(accuracies) + 1)], draws=4)
    table = table.__class__(**{**vars(table), "draws": fold_draws(0, folds=2, repeats=2)})
    trials = []
    for number in range(table.settings.trials):
        row, column = table.place(number)
        correct = np.arange(10) < accuracies[row][column]
        trial = trial_of(number, float(correct.mean()))
        trial.system_attrs[RESULT]["correct"] = pack_correct(correct)
        trials.append(trial)
    for one in table.configurations:
        one.origin["validation"] = 0.9
    return table, trials


class TestFigures:
    def test_they_are_those_of_the_fold_scores(self):
        counts = ((9, 8, 7, 9), (5, 6, 5, 4))
        result = cross_validation(*finished(counts), tiny_images())
        scores = np.array(counts).reshape(2, 2, 2) / 10
        first, second = result["configurations"]
        assert first["fold_scores"] == pytest.approx(scores[0])
        assert first["accuracy"] == pytest.approx(vars(corrected_interval(scores[0])))
        assert first["minus_first"] is None
        assert second["minus_first"]["mean"] == pytest.approx(-0.325)

    def test_differences_hold_together(self):
        """Of three configurations two differences: each at 1 - .05/2."""
        counts = ((6, 7, 6, 7), (5, 6, 5, 4), (6, 6, 7, 7))
        result = cross_validation(*finished(counts), tiny_images())
        scores = np.array(counts).reshape(3, 2, 2) / 10
        for row in (1, 2):
            expected = corrected_interval(scores[row] - scores[0], level=0.975, clip=(-1, 1))
            assert result["configurations"][row]["minus_first"] == pytest.approx(vars(expected))

    def test_a_correct_answer_counts_for_its_own_image(self):
        """The first images of every fold were classified, which are those of the first classes."""
        table, trials = finished(((5, 5, 5, 5), (5, 5, 5, 5)))
        result = cross_validation(table, trials, tiny_images())
        known = np.array(result["labels"])
        for row in result["fold_of_image"]:
            for fold in (1, 2):
                assert sorted(known[np.array(row) == fold]) == list(range(10))

    def test_notes_say_what_it_is_not(self):
        result = cross_validation(*finished(((9, 8, 7, 9), (5, 6, 5, 4))), tiny_images())
        told = " ".join(cross_validated.notes(result))
        assert "the 20 labels of digits in 2 folds, 2 times" in told
        assert "trained on 10 of these labels, measured its trials on the other 10" in told
        assert "put rank 1 first by them" in told
        assert "indicative" in told
        assert cross_validated.rows(result)[1][4] in ("worse", "not distinguishable")


def test_notes_say_so_of_a_search_that_divided_them_for_every_trial():
    table, trials = finished(((9, 8, 7, 9), (5, 6, 5, 4)))
    table.configurations[0].origin["division_seed"] = 5
    told = " ".join(cross_validated.notes(cross_validation(table, trials, tiny_images())))
    assert "every trial of the search trained on 10 of these labels" in told


def test_draws_of_the_tiny_images_are_one_draw():
    table, _ = finished(((1, 1, 1, 1), (1, 1, 1, 1)))
    assert len(draws_of(table)) == 1
