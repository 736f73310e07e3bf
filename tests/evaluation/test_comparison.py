"""Runs side by side: what differs, what is best, and files that hold names of any kind."""

from dataclasses import dataclass, field
from xml.etree import ElementTree

import pytest
from rich.console import Console

from glus.evaluation.comparison import ABSENT, compare_figures, compare_params, comparison_table, write_comparison
from glus.evaluation.errors import EvaluationError


@dataclass(frozen=True)
class Run:
    run_id: str
    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    history: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)


def two_runs():
    curve = tuple((step, 1 / (1 + step)) for step in range(40))
    return [
        Run("aaaaaaaa1", "glus-s", {"lr": "3e-4", "seed": "1"}, {"mevis.JF": 50.3, "loss": 0.2}, {"train/loss": curve}),
        Run("bbbbbbbb2", "glus-a", {"lr": "1e-4", "seed": "1", "mix": "a|b"}, {"mevis.JF": 51.3, "loss": 0.4}),
    ]


def test_only_parameters_that_differ_are_shown():
    rows = compare_params([run.params for run in two_runs()])
    assert [(row.name, row.values) for row in rows] == [("lr", ("3e-4", "1e-4")), ("mix", (ABSENT, "a|b"))]


def test_the_best_is_the_highest_figure_and_the_lowest_loss():
    rows = {row.name: row for row in compare_figures([run.metrics for run in two_runs()])}
    assert (rows["mevis.JF"].best, rows["loss"].best) == (1, 0)


def test_no_run_is_best_where_all_are_equal_or_one_alone_has_a_figure():
    rows = {
        row.name: row for row in compare_figures([{"a": 1.0, "b": 2.0}, {"a": 1.0}, {"b": None, "c": float("nan")}])
    }
    assert [row.best for row in rows.values()] == [None, None, None]
    assert rows["b"].values == ("2", ABSENT, ABSENT)


def test_the_table_shows_names_with_brackets_as_they_are():
    runs = [Run("1", "[red]a", {"p": "[bold]x"}, {"m": 1.0}), Run("2", "b", {"p": "y"}, {"m": 2.0})]
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(comparison_table(runs))
    shown = capture.get()
    assert "[red]a" in shown
    assert "[bold]x" in shown


def test_files_hold_params_figures_and_curves(tmp_path):
    page, text, *curves = write_comparison(two_runs(), tmp_path)
    assert [place.name for place in (page, text, *curves)] == ["comparison.html", "comparison.md", "train_loss.svg"]
    assert "| mevis.JF | 50.3 | **51.3** |" in text.read_text()
    assert "a\\|b" in text.read_text()
    assert "![train/loss](curves/train_loss.svg)" in text.read_text()
    assert "<svg" in page.read_text()
    assert ElementTree.fromstring(curves[0].read_text()).tag.endswith("svg")
    again = write_comparison(two_runs(), tmp_path / "again")
    assert [place.read_bytes() for place in again] == [place.read_bytes() for place in (page, text, *curves)]


def test_a_figure_of_one_step_is_in_the_table_and_draws_no_curve(tmp_path):
    run = Run("1", "a", {}, {"eval/JF": 50.3}, {"eval/JF": ((300, 50.3),)})
    page, text = write_comparison([run], tmp_path)
    assert "| eval/JF | 50.3 |" in text.read_text()
    assert "<svg" not in page.read_text()


def test_a_text_control_is_better_where_it_is_lower():
    figures = [
        {"eval/control/JF": 20.0, "eval/control/drop": 50.0},
        {"eval/control/JF": 70.0, "eval/control/drop": 1.0},
    ]
    assert [row.best for row in compare_figures(figures)] == [0, 0]


def test_a_partial_evaluation_is_never_the_better_one():
    [row] = compare_figures([{"eval/partial": 1.0}, {"eval/partial": 0.0}])
    assert row.best == 1


def test_names_cannot_put_markup_on_the_page(tmp_path):
    bad = "<script>alert(1)</script>"
    runs = [Run("1", bad, {bad: "1"}, {bad: 1.0}, {bad: ((0, 1.0), (1, 2.0))}), Run("2", "b", {}, {"$x^2": 2.0})]
    page, text, *_ = write_comparison(runs, tmp_path, title=bad)
    assert "<script" not in page.read_text()
    assert "<script" not in text.read_text()


def test_runs_of_one_name_are_told_apart_by_their_ids(tmp_path):
    runs = [Run("aaaaaaaa1", "same", {}, {"m": 1.0}), Run("bbbbbbbb2", "same", {}, {"m": 2.0})]
    _, text = write_comparison(runs, tmp_path)
    assert "| | same (aaaaaaaa) | same (bbbbbbbb) |" in text.read_text()


def test_no_runs_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no runs to compare"):
        write_comparison([], tmp_path)


def test_curves_that_would_share_a_file_are_refused(tmp_path):
    run = Run("1", "a", {}, {}, {"a/b": ((0, 1.0), (1, 2.0)), "a.b": ((0, 1.0), (1, 2.0))})
    with pytest.raises(EvaluationError, match="two curves would be one file"):
        write_comparison([run], tmp_path)
    assert not list(tmp_path.iterdir())
