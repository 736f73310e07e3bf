"""What a comparison shows, in its order: J&F by benchmark, paired differences, breakdowns, losses, cost, parameters."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from glus.evaluation.pages.differing_parameters import parameter_sections
from glus.evaluation.pages.rows import ABSENT, Row, Section, compare_metric, compare_metrics
from glus.evaluation.results.benchmarks import PROTOCOLS, protocol_for
from glus.evaluation.results.breakdowns import TITLES
from glus.evaluation.results.directions import direction
from glus.evaluation.results.intervals import Interval
from glus.evaluation.results.mean_metrics import LOST, WHERE_LOST
from glus.evaluation.results.paired import OVERALL, PairedDifference, paired_differences
from glus.evaluation.results.scores_file import Scored
from glus.evaluation.results.summary import EVALUATION, FROM_KEY_FRAMES, TYPE_NAMES, partial_flag

SYSTEM, RANKS = "system/", "ranks"
#: The scores of a run's evaluations by the beginning of their metrics' names: EVALUATION, FROM_KEY_FRAMES.
Scores = Mapping[str, Scored]

_TITLES = {title.replace(" ", "_"): title for title in TITLES}
_PARTS = ("small", "medium", "large", "always_seen", "absent_in_up_to_half", "absent_in_more_than_half")
_BENCHMARK = re.compile(r"([^/]+)/([^/]+)/(?:(merged)/)?(JF|gIoU|cIoU)")
_HALF = re.compile(rf"([^/]+)/([^/]+)/({'|'.join(TYPE_NAMES.values())})/JF")
_PART = re.compile(rf"(kind|{'|'.join(_TITLES)})/([^/]+)/JF")
_NO_DATASETS = {"overall", "kind", "control", "key_frames", *_TITLES}
_COST = {
    "tokens_per_second": "tokens a second",
    "frames_per_second": "frames a second",
    "step_seconds": "seconds a step",
    "mfu": "MFU",
    "memory_gib": "memory of a rank, GiB",
    "waiting_for_data_share": "share of time waiting for data",
    "eval/seconds_per_expression": "evaluation: seconds an expression",
    "eval/tokens_per_expression": "evaluation: tokens an expression",
}


class Compared(Protocol):
    """What is compared of a run: last values by metric, and (step, value) in the order of steps."""

    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def history(self) -> Mapping[str, Sequence[tuple[int, float]]]: ...


def comparison_sections(labels: Sequence[str], runs: Sequence[Compared], scores: Sequence[Scores]) -> list[Section]:
    """The sections in the order in which they are read. `labels` and `scores` have one entry a run."""
    columns, metrics = tuple(labels), [run.metrics for run in runs]
    benchmarks, seen = _benchmarks(metrics)
    parts, of_parts = _breakdowns(metrics, scores)
    lost, of_lost = _lost(metrics)
    losses = [name for name in _names(metrics) if is_loss(name)]
    shown = {*seen, *of_parts, *of_lost, *losses, *_COST, RANKS}
    others = [name for name in _names(metrics) if name not in shown]
    lost_note = "With J, the five parts add up to 100 (docs/benchmarks.md)."
    results = [
        Section("J&F by benchmark", columns, tuple(benchmarks), _partial_note(labels, metrics)),
        *_differences(labels, metrics, scores),
        Section("Kinds and breakdowns, J&F", columns, tuple(parts)),
        Section("Where J is lost", columns, tuple(lost), lost_note if lost else ""),
        Section("Losses, last values", columns, tuple(compare_metric(name, metrics) for name in losses)),
    ]
    found = [
        *(replace(section, results=True) for section in results),
        Section("Cost", columns, tuple(_cost(runs))),
        *parameter_sections(labels, [run.params for run in runs]),
        Section("Other metrics", columns, tuple(_rows(others, metrics, system=False)), folded=True),
        Section("System metrics", columns, tuple(_rows(others, metrics, system=True)), folded=True),
    ]
    return [section for section in found if section.rows or section.note]


def is_loss(name: str) -> bool:
    """Whether a metric is a loss of the training."""
    known = direction(name) == "lower" and not name.startswith((EVALUATION, SYSTEM))
    return known and name not in _COST and not name.endswith(("_seconds", "_share"))


def curve_order(name: str) -> tuple[int, str]:
    """Sort key of curves: losses, then other metrics, then those of the machines."""
    return (0 if is_loss(name) else 2 if name.startswith(SYSTEM) else 1, name)


def rank_hours(run: Compared) -> float | None:
    """Hours of all ranks in the recorded steps; None where the run does not say how many ranks it had."""
    ranks = dict(run.history.get(RANKS, ()))
    fixed = str(run.params.get(RANKS, "0"))
    last, seconds = 0, 0.0
    for step, each in run.history.get("step_seconds", ()):
        count = ranks.get(step) or (float(fixed) if fixed.isdigit() else 0.0)
        if not count:
            return None
        seconds += max(step - last, 0) * each * count
        last = max(step, last)
    return seconds / 3600 if last else None


def _names(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    return sorted({name for one in metrics for name in one})


def _rows(names: Sequence[str], metrics: Sequence[Mapping[str, float]], system: bool) -> list[Row]:
    kept = {name for name in names if name.startswith(SYSTEM) == system}
    return compare_metrics([{name: value for name, value in one.items() if name in kept} for one in metrics])


def _named(row: Row, name: str, notes: Sequence[str] = ()) -> Row:
    return Row(name, row.values, row.best, tuple(notes) if any(notes) else ())


def _partial_note(labels: Sequence[str], metrics: Sequence[Mapping[str, float]]) -> str:
    flags = (partial_flag(EVALUATION), partial_flag(FROM_KEY_FRAMES))
    partial = [label for label, one in zip(labels, metrics, strict=True) if any(one.get(flag) for flag in flags)]
    missing = "predictions are missing (each counts as 0), or videos are (they are in no metric)"
    return f"Partial: {', '.join(partial)}; {missing}." if partial else ""


def _evaluations(metrics: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """Beginnings of names and what follows a row's name, for the evaluations there are."""
    endings = {EVALUATION: "", FROM_KEY_FRAMES: ", from key frames"}
    return [(begin, end) for begin, end in endings.items() if any(f"{begin}overall/JF" in one for one in metrics)]


def _place_of(dataset: str, split: str) -> tuple[int, str]:
    """Order of benchmarks: that of their table."""
    places = [each.dataset for each in PROTOCOLS]
    return places.index(dataset) if dataset in places else len(places), f"{dataset}/{split}"


def _benchmarks(metrics: Sequence[Mapping[str, float]]) -> tuple[list[Row], set[str]]:
    """The rows of J&F with intervals, and the names of all metrics in them."""
    rows, seen = [], set()
    for begin, end in _evaluations(metrics):
        found = []
        for name in _names(metrics):
            match = _BENCHMARK.fullmatch(name.removeprefix(begin)) if name.startswith(begin) else None
            if match and match[1] not in _NO_DATASETS:
                label = protocol_for(match[1], match[2]).name + (", four annotators merged" if match[3] else "")
                label += "" if match[4] == "JF" else f", {match[4]}"
                found.append((_place_of(match[1], match[2]), match[4] != "JF", label, name))
        for *_, label, name in [*sorted(found), (0, "", "all expressions", f"{begin}overall/JF")]:
            bounds = [(one.get(f"{name}_low"), one.get(f"{name}_high")) for one in metrics]
            notes = ["" if low is None or high is None else _interval(low, high) for low, high in bounds]
            rows.append(_named(compare_metric(name, metrics, shown="z.1f"), label + end, notes))
            seen |= {name, f"{name}_low", f"{name}_high"}
    return rows, seen


def _differences(
    labels: Sequence[str], metrics: Sequence[Mapping[str, float]], scores: Sequence[Scores]
) -> list[Section]:
    if len(labels) < 2 or not _evaluations(metrics):
        return []
    rows, other_data = [], set()
    for begin, end in _evaluations(metrics):
        first = scores[0].get(begin)
        found: list[dict[str, PairedDifference]] = []
        for label, each in zip(labels[1:], scores[1:], strict=True):
            own = each.get(begin)
            pair = paired_differences(own.expressions, first.expressions) if own and first else {}
            found.append(pair)
            other_data |= {f"{name} in {label}" for name in pair if own and first and _other_data(first, own, name)}
        places = {name for one in found for name in one if name != OVERALL}
        order = sorted(places, key=lambda place: _place_of(*place.split("/", 1)))
        for place in [*order, *([OVERALL] if any(found) else [])]:
            name = protocol_for(*place.split("/", 1)).name if place else "all expressions"
            cells = [one.get(place) for one in found]
            values = tuple(ABSENT if each is None else f"{each.JF:+z.1f}" for each in cells)
            rows.append(Row(name + end, values, (), tuple("" if each is None else _verdict(each) for each in cells)))
    title = f"J&F minus that of {labels[0]}"
    if not rows:
        return [Section(title, tuple(labels[1:]), (), "No expression's scores are there for two of the runs.")]
    note = (
        "Over the expressions that both have (their number in brackets), with 95 % intervals: a bootstrap over videos, "
        "drawn alike for both. An interval that holds zero shows no difference."
    )
    if other_data:
        note += f" Scored on other shards: {', '.join(sorted(other_data))}."
    return [Section(title, tuple(labels[1:]), tuple(rows), note)]


def _other_data(first: Scored, own: Scored, name: str) -> bool:
    return bool(first.origin.get(name) and own.origin.get(name) and first.origin[name] != own.origin[name])


def _verdict(found: PairedDifference) -> str:
    span = "" if found.interval is None else f"{found.interval.low:+z.1f} to {found.interval.high:+z.1f}\n"
    return f"{span}{found.verdict} ({found.expressions})"


def _interval(low: float, high: float) -> str:
    return f"{low:z.1f} to {high:z.1f}"


def _breakdowns(metrics: Sequence[Mapping[str, float]], scores: Sequence[Scores]) -> tuple[list[Row], set[str]]:
    """Kinds, ReVOS's halves, sizes, rivals, absent frames; then the text control."""
    found: list[tuple[Any, str, str, Callable[[Scored], Interval | None]]] = []
    for name in _names(metrics):
        rest = name.removeprefix(EVALUATION)
        if part := _PART.fullmatch(rest):
            title, shown = _TITLES.get(part[1], part[1]), part[2] if part[1] == "kind" else part[2].replace("_", " ")
            place = _PARTS.index(part[2]) if part[2] in _PARTS else len(_PARTS)
            order = (["kind", *_TITLES].index(part[1]), place, part[2])
            found.append((order, f"{title}: {shown}", name, _part_interval(title, shown)))
        elif half := _HALF.fullmatch(rest):
            label = f"{protocol_for(half[1], half[2]).name}: {half[3]}"
            found.append(((-1, 0, rest), label, name, _half_interval(half[1], half[2], half[3])))
    rows = []
    for _, label, name, find in sorted(found, key=lambda each: each[0]):
        spans = [find(each[EVALUATION]) if EVALUATION in each else None for each in scores]
        notes = ["" if span is None else _interval(span.low, span.high) for span in spans]
        rows.append(_named(compare_metric(name, metrics, shown="z.1f"), label, notes))
    drop = f"{EVALUATION}control/drop"
    if any(drop in one for one in metrics):
        rows.append(_named(compare_metric(drop, metrics, shown="z.1f"), "text control: points lost"))
    return rows, {drop, *(name for _, _, name, _ in found)}


def _part_interval(title: str, part: str) -> Callable[[Scored], Interval | None]:
    def find(scored: Scored) -> Interval | None:
        parts = scored.summary.kinds if title == "kind" else scored.summary.breakdowns.get(title, {})
        return parts[part].intervals.get("JF") if part in parts else None

    return find


def _half_interval(dataset: str, split: str, half: str) -> Callable[[Scored], Interval | None]:
    def find(scored: Scored) -> Interval | None:
        for each in scored.summary.benchmarks:
            if (each.dataset, each.split) == (dataset, split) and half in each.groups:
                return each.groups[half].intervals.get("JF")
        return None

    return find


def _lost(metrics: Sequence[Mapping[str, float]]) -> tuple[list[Row], set[str]]:
    names = {f"{EVALUATION}overall/{key}": label for key, label in WHERE_LOST.items()}
    if not any(f"{EVALUATION}overall/{LOST[0]}" in one for one in metrics):
        return [], set()
    return [_named(compare_metric(name, metrics, shown="z.1f"), label) for name, label in names.items()], set(names)


def _cost(runs: Sequence[Compared]) -> list[Row]:
    hours = [rank_hours(run) for run in runs]
    steps = [max((points[-1][0] for points in run.history.values() if points), default=None) for run in runs]
    rows = []
    if any(hours):
        texts = tuple(ABSENT if each is None else f"{each:,.3g}" for each in hours)
        rows.append(Row("GPU-hours (without GPUs: hours of all ranks)", texts))
        rows.append(Row("steps", tuple(ABSENT if each is None else f"{each:,}" for each in steps)))
    metrics = [run.metrics for run in runs]
    there = {name: label for name, label in _COST.items() if any(name in one for one in metrics)}
    rows += [_named(compare_metric(name, metrics), label) for name, label in there.items()]
    return rows
