"""What a study shows, as Markdown and as a page: a table a measure, in words, pictures chosen by a rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.common.atomic import write_atomic
from glus.evaluation.pages.comparison import render
from glus.evaluation.pages.rows import ABSENT
from glus.evaluation.results.intervals import Interval
from glus.evaluation.results.seed_intervals import SeedDifference, SeedEstimate

PAGE, MARKDOWN = "study.html", "study.md"


@dataclass(frozen=True)
class ArmRow:
    """One arm's line of a table; `gap` is its difference to the first arm, None for that itself and where unknown."""

    arm: str
    own: SeedEstimate | None
    gap: SeedDifference | None = None


@dataclass(frozen=True)
class MeasureTable:
    """One measure, a row an arm, the one to compare with first. `steps`: values are steps of a training."""

    title: str
    rows: tuple[ArmRow, ...]
    note: str = ""
    steps: bool = False


@dataclass(frozen=True)
class Picture:
    """Masks of two arms on one video. `file` is relative to the page; empty: there is none, and `note` says why."""

    arm: str
    file: str
    note: str


@dataclass(frozen=True)
class PublishedPart:
    """What others published about a part: J&F with and without it on a benchmark."""

    part: str
    benchmark: str
    full: float
    without: float
    source: str


@dataclass(frozen=True)
class StudyPage:
    """All that the report shows. `notes` come first: what is over which seeds, what is missing."""

    title: str
    base: str
    notes: tuple[str, ...]
    tables: tuple[MeasureTable, ...]
    pictures: tuple[Picture, ...]
    published: tuple[PublishedPart, ...]
    published_note: str


def write_study(page: StudyPage, out: Path) -> tuple[Path, Path]:
    """Write OUT/study.html and OUT/study.md; return their places. Raises InputError where they cannot be written."""
    found = findings(page)
    html = render(
        "study.html.jinja",
        title=page.title,
        page=page,
        findings=found,
        tables=[(table, [_cells(table, row) for row in table.rows]) for table in page.tables],
    )
    write_atomic(out / PAGE, html.encode())
    write_atomic(out / MARKDOWN, markdown(page).encode())
    return out / PAGE, out / MARKDOWN


def findings(page: StudyPage) -> list[tuple[str, list[str]]]:
    """(arm, sentences) of every arm but the first: what differs, then where no difference is shown."""
    said: list[tuple[str, list[str]]] = []
    arms = list(dict.fromkeys(row.arm for table in page.tables for row in table.rows[1:]))
    for arm in arms:
        lines, nothing, unknown = [], [], []
        for table in page.tables:
            for row in table.rows[1:]:
                if row.arm != arm:
                    continue
                if row.gap is None or row.gap.interval is None:
                    unknown.append(table.title)
                elif row.gap.verdict in ("higher", "lower"):
                    lines.append(f"{table.title}: {_gap(row.gap.value, table.steps)} ({_span(row.gap, table)}).")
                else:
                    nothing.append(f"{table.title} ({_span(row.gap, table)})")
        if nothing:
            lines.append(f"No difference shown: {', '.join(nothing)}.")
        if unknown:
            lines.append(f"Not measured, or without interval: {', '.join(unknown)}.")
        said.append((arm, lines))
    return said


def markdown(page: StudyPage) -> str:
    """The report as Markdown, without pictures."""
    lines = [f"# {page.title}", "", *(f"- {note}" for note in page.notes), ""]
    lines += [f"## Compared with {page.base}", ""]
    for arm, said in findings(page):
        lines.append(f"- **{arm}**: {' '.join(said)}")
    lines.append("")
    for table in page.tables:
        lines += [f"## {table.title}", "", *([table.note, ""] if table.note else [])]
        lines += [f"| | value | 95 % | difference to {page.base} | 95 % | |", "|---|---|---|---|---|---|"]
        lines += [f"| {' | '.join(_cells(table, row))} |" for row in table.rows]
        lines.append("")
    lines += ["## The paper's parts next to these", "", page.published_note, ""]
    if page.published:
        lines += [
            "| part left out | benchmark | J&F with it | without | difference | source |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {each.part} | {each.benchmark} | {each.full:.1f} | {each.without:.1f} "
            f"| {each.without - each.full:+.1f} | {each.source} |"
            for each in page.published
        ]
        lines.append("")
    return "\n".join(lines)


def _cells(table: MeasureTable, row: ArmRow) -> list[str]:
    """Arm, value, interval, difference, interval, verdict."""
    value = ABSENT if row.own is None else _number(row.own.value, table.steps)
    own = ABSENT if row.own is None else _bounds(row.own.interval, table.steps, signed=False)
    if row.gap is None:
        return [row.arm, value, own, "", "", ""]
    gap = _gap(row.gap.value, table.steps)
    if table.steps and row.own is not None and math.isinf(row.own.value) and not row.gap.value:
        gap = "neither reached it"
    return [row.arm, value, own, gap, _bounds(row.gap.interval, table.steps, signed=True), row.gap.verdict]


def _span(gap: SeedDifference, table: MeasureTable) -> str:
    return _bounds(gap.interval, table.steps, signed=True)


def _bounds(interval: Interval | None, steps: bool, signed: bool) -> str:
    if interval is None:
        return ABSENT
    text = _gap if signed else _number
    return f"{text(interval.low, steps)} to {text(interval.high, steps)}"


def _number(value: float, steps: bool) -> str:
    if math.isinf(value):
        return "not reached"
    return f"{value:,.0f}" if steps else f"{value:.1f}"


def _gap(value: float, steps: bool) -> str:
    """A difference; of steps infinity is "not reached", minus infinity "reached by this arm alone"."""
    if math.isinf(value):
        return "not reached" if value > 0 else "reached by this one alone"
    return f"{value:+,.0f}" if steps else f"{value:+z.1f}"


def table_of(title: str, rows: Sequence[ArmRow], note: str = "", steps: bool = False) -> MeasureTable:
    """A table without the arms that have no value."""
    return MeasureTable(title, tuple(row for row in rows if row.own is not None), note, steps)
