"""Rows of tables that set runs next to each other: parameters that differ, metrics with their best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glus.evaluation.results.directions import direction
from glus.evaluation.results.summary import EVALUATION, partial_flag

ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One line of a comparison: each run's value as text (ABSENT where it has none), and the runs that are best.

    `notes` are small texts below the values (intervals), one for each, or none at all.
    """

    name: str
    values: tuple[str, ...]
    best: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A titled table of rows; on pages, one of `results` comes before the curves.

    A `folded` one stays closed on the page until it is opened, and is not printed.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    results: bool = False
    folded: bool = False


def compare_params(params: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each parameter that is not the same in all runs, by name. Values are compared as text."""
    names = sorted({name for one in params for name in one})
    rows = [Row(name, tuple(str(one[name]) if name in one else ABSENT for one in params)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def compare_metrics(metrics: Sequence[Mapping[str, float | None]], partial: Sequence[bool] = ()) -> list[Row]:
    """A row for each metric of any run, by name, with the values as they are shown and the best of them."""
    names = sorted({name for one in metrics for name in one})
    return [compare_metric(name, metrics, partial) for name in names]


def compare_metric(
    name: str,
    metrics: Sequence[Mapping[str, float | None]],
    partial: Sequence[bool] = (),
    shown: str = ".4g",
) -> Row:
    """The row of one metric. The best value is the one that its direction says (directions.py).

    Values that are shown alike are equal; all of the best are marked, none where all are equal or the metric has no
    direction. A value that is not finite is never the best, nor is any of a `partial` run, nor the eval/... of one
    whose eval/partial is not 0, nor the eval/key_frames/... of one whose eval/key_frames/partial is not.
    """
    texts = [ABSENT if one.get(name) is None else format(one[name], shown) for one in metrics]
    # float(): what is shown alike is equal.
    known = {
        run: value
        for run, text in enumerate(texts)
        if text != ABSENT and math.isfinite(value := float(text.replace(",", "")))
    }
    of_eval = name.startswith(EVALUATION) and name != partial_flag(name)
    apart = {run for run, one in enumerate(metrics) if of_eval and one.get(partial_flag(name))}
    apart |= {run for run, flag in enumerate(partial) if flag}
    known = {run: value for run, value in known.items() if run not in apart}
    wanted = direction(name)
    best: tuple[int, ...] = ()
    if wanted and len(set(known.values())) > 1:
        top = max(known.values()) if wanted == "higher" else min(known.values())
        best = tuple(run for run, value in known.items() if value == top)
    return Row(name, tuple(texts), best)
