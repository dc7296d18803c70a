"""What a report says of a search: from its trials, in every form, without torch, ray or a test image."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ssl_core.errors import UserError
from tests.contracts.test_names import modules_loaded_by
from tests.tune_ssl.fakes import Run, small_config
from tune_ssl import analysis
from tune_ssl.analysis import default_of, fanova, flatness_of, importance_of
from tune_ssl.cli import app
from tune_ssl.study import DEFAULT
from tune_ssl.views.charts import bars, curves
from tune_ssl.views.report import format_report, sections
from tune_ssl.workflows.report import report, report_of

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(autouse=True, scope="module")
def quick_forests():
    """Few resamples of one tree each: what is tested is what is done with forests."""
    few = functools.partial(analysis.bootstrap_importance, resamples=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "TREES", 1)
        patch.setattr(analysis, "bootstrap_importance", few)
        yield


def finished(path, **changes) -> Run:
    return Run(path / "mt", small_config(**changes)).finish()


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Run:
    """Thirty trials of a method; fifteen or so of full length."""
    return finished(
        tmp_path_factory.mktemp("runs"), trials=30, reduction_factor=2, metric="accuracy"
    )


@pytest.fixture(scope="module")
def reported(searched) -> dict:
    return report(searched.directory, Console(stderr=True))


def space_of(run):
    return run.config.space(10)


class TestFanova:
    def test_a_share_is_that_of_the_variance_on_the_unit_interval(self):
        """x0 + x1 / 2: variances 1 and 1/4 to 1; as many trials as a forest needs to see it."""
        points = np.random.default_rng(0).random((120, 3))
        values = points[:, 0] + points[:, 1] / 2
        found = np.mean(
            [fanova(points, values, seed, choices=[0, 0, 0]) for seed in range(3)], axis=0
        )
        assert found == pytest.approx([0.8, 0.2, 0.0], abs=0.1)

    def test_a_choice_is_one_column(self):
        points = np.column_stack([np.arange(60) % 3, np.random.default_rng(0).random(60)])
        found = fanova(points, (points[:, 0] == 1) * 1.0, 0, choices=[3, 0])
        assert found[0] > 0.9

    def test_values_that_are_all_the_same_explain_nothing(self):
        points = np.random.default_rng(0).random((20, 2))
        assert fanova(points, np.ones(20), 0, choices=[0, 0]).tolist() == [0.0, 0.0]


class TestImportance:
    def test_trials_that_were_cut_count_at_the_first_rung(self, searched):
        trials = searched.trials()
        states = {trial.state.name for trial in trials}
        assert states == {"COMPLETE", "PRUNED"}
        found = importance_of(trials, space_of(searched), searched.config.rungs()[0], 0)
        (group,) = found["groups"]
        assert (found["step"], group["trials"], group["of"]) == (7, 30, "mean_teacher")
        names = {row["name"] for row in group["parameters"]}
        assert {"learning_rate", "ema_horizon", "unlabeled_weight"} < names
        assert "unlabeled_weight_u" not in names
        shares = [row["share"] for row in group["parameters"]]
        assert shares == sorted(shares, reverse=True)
        assert group["parameters"][0]["name"] in ("learning_rate", "ema_horizon")

    def test_it_is_the_same_each_time_and_another_with_another_seed(self, searched):
        trials, space = searched.trials(), space_of(searched)
        first, again, other = (importance_of(trials, space, 7, seed) for seed in (0, 0, 1))
        assert first == again != other

    def test_few_trials_say_nothing(self, searched):
        few = importance_of(searched.trials()[:9], space_of(searched), 7, 0)
        assert few["groups"] == [{"of": "mean_teacher", "trials": 9, "parameters": None}]
        assert few["spearman_with_final"] is None

    def test_a_joint_study_is_told_as_a_whole_and_by_method(self, tmp_path):
        run = finished(tmp_path, alg=("supervised", "mean_teacher"), trials=30)
        found = importance_of(run.trials(), space_of(run), run.config.rungs()[0], 0)
        whole, *methods = found["groups"]
        assert [group["of"] for group in found["groups"]] == [
            *("all methods", "supervised", "mean_teacher"),
        ]
        assert whole["trials"] == sum(group["trials"] for group in methods) == 30
        names = {row["name"] for row in whole["parameters"]}
        assert "algorithm" in names
        assert "ramp_fraction" not in names
        for group in methods:
            if group["parameters"] is not None:
                own = {row["name"] for row in group["parameters"]}
                assert ("ramp_fraction" in own) == (group["of"] == "mean_teacher")


class TestFlatness:
    def test_ranges_lie_around_the_best_within_the_space_and_one_within_another(self, searched):
        found = flatness_of(searched.trials(), space_of(searched))
        best = max(t.value for t in searched.trials() if t.state.name == "COMPLETE")
        assert found["value"] == best
        assert len(found["parameters"]) == 5
        for row in found["parameters"]:
            low, high = row["range"]
            assert low <= row["best"] <= high
            for one in row["within"]:
                for inner, outer in (("surely", "likely"), ("likely", "at_most")):
                    assert low <= one[outer][0] <= one[inner][0] <= one[inner][1]
                    assert one[inner][1] <= one[outer][1] <= high * (1 + 1e-9)
                assert one["surely"][0] <= row["best"] * 1.00001
                assert 0 <= one["width_surely"] <= one["width"] <= one["width_at_most"] <= 1

    def test_a_weight_is_told_as_the_training_gets_it(self, searched):
        found = flatness_of(searched.trials(), space_of(searched))
        (row,) = [row for row in found["parameters"] if row["name"] == "unlabeled_weight"]
        assert row["range"] == [0.5, 300.0]
        trial = searched.study.get_trial(found["trial"])
        assert row["best"] == pytest.approx(
            0.5 * 600 ** trial.params["unlabeled_weight_u"], rel=1e-4
        )

    def test_the_best_is_told_as_it_was_drawn_whatever_its_scale(self, searched):
        found = flatness_of(searched.trials(), space_of(searched))
        params = searched.study.get_trial(found["trial"]).params
        told = {row["name"]: row["best"] for row in found["parameters"] if row["name"] in params}
        assert {"learning_rate", "weight_decay", "ema_horizon", "ramp_fraction"} <= set(told)
        assert told == pytest.approx({name: params[name] for name in told}, rel=1e-9)

    def test_few_complete_trials_have_no_flat_range(self, searched):
        found = flatness_of(searched.trials()[:8], space_of(searched))
        assert {row["within"] for row in found["parameters"]} == {None}
        assert flatness_of([], space_of(searched)) is None

    def test_trials_near_the_best_are_counted_itself_among_them(self, searched):
        found = flatness_of(searched.trials(), space_of(searched))
        values = [t.value for t in searched.trials() if t.state.name == "COMPLETE"]
        for one in found["within"]:
            assert one["trials"] == sum(v >= max(values) - one["points"] - 1e-9 for v in values)
        assert found["complete"] == len(values)

    @pytest.mark.parametrize(
        ("place", "tied", "falling", "edge"),
        [
            (0.04, [0.1, 0.12], False, "low"),
            (0.04, [0.1, 0.5, 0.9], False, None),
            (0.06, [0.1], False, None),
            (0.97, [], False, "high"),
            (0.97, [], True, "low"),
            (0.02, [0.02], True, "high"),
        ],
    )
    def test_an_edge_is_where_the_best_and_its_ties_lie(self, place, tied, falling, edge):
        assert analysis._edge(place, np.array(tied), falling) == edge


class TestDefault:
    def test_the_whole_search_is_the_last_row_and_says_what_happened(self, searched):
        found = default_of(searched.trials(), "accuracy", 0)
        default = next(t for t in searched.trials() if DEFAULT in t.user_attrs)
        assert [row["trials"] for row in found["sizes"]] == [5, 10, 20, 30]
        last = found["sizes"][-1]
        best = max(t.value for t in searched.trials() if t.state.name == "COMPLETE")
        assert (found["value"], found["best"]) == (default.value, best)
        assert last["on_these_images"] == float(default.value == best)
        assert last["first"] == last["on_such_images"]
        assert last["best"] == {"mean": best, "low": best, "high": best}

    def test_balanced_accuracy_is_not_resampled(self, searched):
        found = default_of(searched.trials(), "balanced_accuracy", 0)
        assert {row["on_such_images"] for row in found["sizes"]} == {None}

    def test_without_a_complete_default_nothing_is_said(self, searched):
        rest = [t for t in searched.trials() if DEFAULT not in t.user_attrs]
        assert default_of(rest, "accuracy", 0) is None


class TestViews:
    def test_json_holds_every_figure_and_plain_values_only(self, reported):
        assert json.loads(format_report(reported, "json")) == reported

    def test_a_page_needs_no_network_and_escapes_what_a_user_named(self, reported):
        named = reported | {"run": "<script>x</script>&"}
        page = format_report(named, "html")
        assert "<script" not in page
        assert "&lt;script&gt;x&lt;/script&gt;&amp;" in page
        assert not re.search(r"(src|href|url)\s*[=(]|https?:|@import", page)
        assert page.count("<svg") == 2

    def test_markdown_has_a_table_for_every_question(self, reported):
        text = format_report(reported, "markdown")
        assert text.startswith("# mt\n")
        assert text.count("\n## ") == text.count("\n|---") == 3

    def test_what_cannot_be_said_is_said(self, tmp_path):
        run = finished(tmp_path, trials=3, metric="accuracy")
        text = format_report(report(run.directory, Console(stderr=True)), "markdown")
        assert "fewer than 10 cannot say which" in text
        assert "how far one may move from the best cannot be said" in text
        assert "stays within" not in text

    def test_a_hyperparameter_that_is_no_more_than_a_dummy_is_marked(self, reported):
        importance = next(s for s in sections(reported) if s.title.startswith("Importance"))
        rows = reported["importance"]["groups"][0]["parameters"]
        marked = {row[0] for row in importance.rows if row[2] == "no more than a dummy"}
        assert marked == {row["name"] for row in rows if not row["above_dummy"]}
        assert importance.rows[-1][0] == "a dummy"

    def test_pictures_escape_and_a_single_place_is_no_curve(self):
        assert "&lt;a&gt;" in bars([("<a>", 0.5, 0.4, 0.6)], line=("dummy", 0.1))
        assert curves([5], {"x": [0.1]}, "n") == ""
        assert curves([5, 10], {"x": [0.1, 0.2]}, "n").count("<polyline") == 1


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(app, ["report", *map(str, arguments)])

    def test_it_prints_and_writes_the_page(self, searched):
        page = searched.file("report.html")
        page.unlink(missing_ok=True)
        done = self.run(searched.directory.path)
        assert done.exit_code == 0
        assert "How often the published default would have won" in done.output
        assert page.read_text().startswith("<!DOCTYPE html>")

    def test_a_files_ending_decides_its_form(self, searched, tmp_path):
        for name, begins in (("a.json", "{"), ("a.md", "# mt")):
            assert self.run(searched.directory.path, "-o", tmp_path / name).exit_code == 0
            assert (tmp_path / name).read_text().startswith(begins)
        refused = self.run(searched.directory.path, "--format", "table", "-o", tmp_path / "a.txt")
        assert isinstance(refused.exception, UserError)
        assert "markdown or json" in str(refused.exception)

    def test_a_comparison_is_told_to_give_a_cell(self, tmp_path):
        (tmp_path / "compare.yaml").write_text("{}")
        with pytest.raises(UserError, match="is a comparison"):
            report_of(str(tmp_path), "", Console(stderr=True))

    def test_a_confirmation_is_read_where_there_is_one(self, searched, tmp_path):
        def row(name, is_default, validations):
            return {
                "name": name,
                "origin": {"published_default": is_default},
                "validation": 0.8,
                "verdict": "worse",
                "test": {"mean": 0.8, "low": 0.7, "high": 0.9},
                "retrainings": [
                    {"split_seed": draw, "validation": value}
                    for draw, value in enumerate(validations)
                ][:: -1 if is_default else 1],
            }

        result = {
            "draws": 3,
            "winner": "rank 1",
            "test": {"opening": 2},
            "configurations": [
                row("rank 1", False, [0.8, 0.9, None]),
                row("published default", True, [0.9, 0.7, 0.1]),
            ],
        }
        folder = searched.directory.path / "confirm" / "top1-seeds3"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result))
        done = self.run(searched.directory.path, "--format", "markdown")
        alone = result | {"configurations": result["configurations"][1:]}
        (folder / "result.json").write_text(json.dumps(alone))
        default_alone = self.run(searched.directory.path, "--format", "markdown")
        (folder / "result.json").write_text(json.dumps({"folds": 5, "configurations": []}))
        folds = self.run(searched.directory.path, "--format", "markdown")
        (folder / "result.json").write_text("{")
        damaged = self.run(searched.directory.path)
        (folder / "result.json").unlink()
        assert "On 2 of 3 fresh draws of labels the published default was best" in done.output
        assert "test, opening 2" in done.output
        assert "Confirmation" in default_alone.output
        assert "was best" not in default_alone.output, "beside no other"
        assert folds.exit_code == 0, "a cross-validation lies there, too, and opened no test image"
        assert "Confirmation" not in folds.output
        assert "cannot be read" in str(damaged.exception)


def test_it_loads_neither_torch_nor_ray():
    loaded = modules_loaded_by(["tune_ssl.workflows.report", "tune_ssl.views.report"])
    assert "optuna" in loaded
    assert not loaded & {"torch", "ray", "sklearn", "scipy.stats"}
