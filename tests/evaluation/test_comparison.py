"""Runs side by side: what differs, what is best, and files that hold names of any kind."""

import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

import pytest
from rich.console import Console

from glus.common.errors import EvaluationError
from glus.evaluation.pages.comparison import comparison_tables, write_comparison
from glus.evaluation.pages.curves import draw_curves
from glus.evaluation.pages.rows import ABSENT, compare_metrics, compare_params


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
    rows = {row.name: row for row in compare_metrics([run.metrics for run in two_runs()])}
    assert (rows["mevis.JF"].best, rows["loss"].best) == ((1,), (0,))


def test_no_run_is_best_where_all_are_equal_or_one_alone_has_a_figure():
    rows = {
        row.name: row for row in compare_metrics([{"a": 1.0, "b": 2.0}, {"a": 1.0}, {"b": None, "c": float("nan")}])
    }
    assert [row.best for row in rows.values()] == [(), (), ()]
    assert rows["b"].values == ("2", ABSENT, ABSENT)


def test_the_table_shows_names_with_brackets_as_they_are():
    runs = [Run("1", "[red]a", {"p": "[bold]x"}, {"m": 1.0}), Run("2", "b", {"p": "y"}, {"m": 2.0})]
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(comparison_tables(runs))
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


def marked(*metrics, name=None):
    [row] = [row for row in compare_metrics(metrics) if name in (None, row.name)]
    return list(row.best)


def test_the_score_against_another_text_has_no_best_and_its_drop_has():
    metrics = [
        {"eval/control/JF": 2.0, "eval/control/drop": 0.1, "eval/mevis/valid_u/control_JF": 1.0},
        {"eval/control/JF": 40.0, "eval/control/drop": 30.0, "eval/mevis/valid_u/control_JF": 2.0},
    ]
    assert {row.name: row.best for row in compare_metrics(metrics)} == {
        "eval/control/JF": (),
        "eval/control/drop": (1,),
        "eval/mevis/valid_u/control_JF": (),
    }


@pytest.mark.parametrize(
    "name",
    ["cross_entropy", "mask_bce", "mask_dice", "total", "contrastive", "train/loss", "val_loss", "step_seconds"]
    + ["loss/val", "eval/mevis/valid_u/missing", "memory_gib", "waiting_for_data_share", "eval/partial"],
)
def test_a_loss_is_better_where_it_is_lower(name):
    assert marked({name: 0.7}, {name: 0.0}) == [1]


@pytest.mark.parametrize(
    "name",
    ["eval/overall/JF", "eval/revos/valid/A", "eval/kind/motion/JF", "MeViS valid_u, J&F", "tokens_per_second", "mfu"]
    + ["eval/object_size/low/JF", "eval/ref_davis17/valid/merged/J", "text control, drop"],
)
def test_a_score_is_better_where_it_is_higher(name):
    assert marked({name: 50.0}, {name: 60.0}, {name: 1.0}) == [1]


@pytest.mark.parametrize(
    "name",
    ["eval/overall/JF_low", "eval/overall/JF_high", "learning_rate", "gradient_norm", "system/node-0/cpu_percent"]
    + ["system/node-0/network_mib_per_second", "system/loss", "contrastive_share", "epoch", "unheard_of"],
)
def test_a_metric_without_a_meaning_has_no_best(name):
    assert marked({name: 50.0}, {name: 60.0}) == []


def test_all_of_the_best_are_marked_and_what_is_shown_alike_is_equal():
    assert marked({"loss": 0.5}, {"loss": 0.2}, {"loss": 0.20000001}) == [1, 2]
    assert marked({"loss": 0.2}, {"loss": 0.20000001}) == []


def test_what_is_not_finite_is_never_the_best():
    nan, inf = float("nan"), float("inf")
    assert marked({"loss": nan}, {"loss": 2.0}, {"loss": 1.0}, {"loss": -inf}) == [2]
    assert marked({"eval/overall/JF": inf}, {"eval/overall/JF": 2.0}, {"eval/overall/JF": 1.0}) == [1]
    assert marked({"loss": nan}, {"loss": 1.0}) == []


def test_a_partial_evaluation_is_never_the_better_one():
    runs = [{"eval/overall/JF": 90.0, "eval/partial": 1.0}, {"eval/overall/JF": 50.0, "eval/partial": 0.0}]
    assert marked(*runs, name="eval/partial") == [1]
    assert marked(*runs, name="eval/overall/JF") == []
    assert marked(*runs, {"eval/overall/JF": 40.0}, name="eval/overall/JF") == [1]


def test_terminal_page_and_text_mark_the_same(tmp_path):
    metrics = [{"cross_entropy": 2.0, "lr": 1.0}, {"cross_entropy": 1.5, "lr": 2.0}, {"cross_entropy": 1.5, "lr": 3.0}]
    runs = [Run(str(number), f"run{number}", {}, each) for number, each in enumerate(metrics)]
    page, text = (place.read_text() for place in write_comparison(runs, tmp_path))
    assert "| cross_entropy | 2 | **1.5** | **1.5** |" in text and "| lr | 1 | 2 | 3 |" in text
    assert re.findall(r'<td class="wrap( best)?">', page)[:6] == ["", " best", " best", "", "", ""]
    console = Console(width=100, force_terminal=True)
    with console.capture() as capture:
        console.print(comparison_tables(runs))
    assert re.findall(r"\x1b\[1;32m([\d.]+)", capture.get()) == ["1.5", "1.5"]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ((1e308, -1e308), "step, 2 beyond 1e+300"),
        ((1.7976931348623157e308, 1.0), "step, 1 beyond 1e+300"),
        ((float("inf"), 1.0, float("nan")), "step, 2 not finite"),
        ((float("nan"), float("nan")), "step, 2 not finite"),
        ((5e-324, 1e300), "step"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_curve_of_any_value_is_drawn_and_says_what_it_cannot_show(values, note):
    svg = draw_curves("loss", ["a"], [tuple(enumerate(values))])
    assert f">{note}</text>" in svg
    assert "inf" not in svg and "nan" not in svg


def test_a_metric_with_a_long_name_has_a_curve(tmp_path):
    names = ["é" * 249 + "a", "é" * 249 + "b"]
    run = Run("1", "a", {}, {}, dict.fromkeys(names, ((0, 1.0), (1, 2.0))))
    assert len({place.name for place in write_comparison([run], tmp_path)}) == 4


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
