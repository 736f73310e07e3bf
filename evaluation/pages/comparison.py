"""Several runs side by side: J&F and its differences first, then what they cost, and what differs between them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from rich import box
from rich.console import Group
from rich.table import Table

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.terminal import cell, plain
from glus.evaluation.pages.comparison_sections import RANKS, SYSTEM, Compared, Scores, comparison_sections, curve_order
from glus.evaluation.pages.curves import COLOURS, curve_file, draw_curves
from glus.evaluation.pages.rows import ABSENT, Row, Section
from glus.evaluation.results.mean_metrics import LOST, LOST_NAMES
from glus.evaluation.results.published_results import PublishedTable


class RunRecord(Compared, Protocol):
    """A training or evaluation run, wherever it is kept (training/tracking/recorded_runs.py yields them).

    `metrics` are last values; `history[name]` holds (step, value) in the order of steps.
    """

    @property
    def run_id(self) -> str: ...
    @property
    def name(self) -> str: ...


def comparison_tables(runs: Sequence[RunRecord], scores: Sequence[Scores] = ()) -> Group:
    """The comparison for the terminal: all sections but the folded ones, a column a run; the best is bold.

    `scores` has an entry a run: what paired differences and the intervals of kinds need. Empty: there are none.
    """
    shown = [_rich(section) for section in _sections(runs, scores) if not section.folded]
    return Group(*(part for table in shown for part in (table, "")))


def published_rich(published: PublishedTable) -> Table:
    """Return published results for the terminal: ours are bold."""
    table = Table(box=box.SIMPLE_HEAD, title="J&F next to published results", title_justify="left")
    table.add_column("", overflow="fold")
    for column in published.columns:
        table.add_column(cell(column), justify="right", overflow="fold")
    for row in published.rows:
        table.add_row(cell(row.system), *map(_one_digit, row.metrics), style="bold" if row.ours else None)
    return table


def write_comparison(
    runs: Sequence[RunRecord],
    out: Path,
    title: str = "Runs compared",
    published: PublishedTable | None = None,
    scores: Sequence[Scores] = (),
) -> list[Path]:
    """Write comparison.html (curves inline), comparison.md and curves/NAME.svg into `out`.

    `published` shows published results next to them, each with its source; `scores` as in `comparison_tables`.
    Returns the places, the page first. Raises EvaluationError for no runs, DataError where `out` cannot be written.
    """
    if not runs:
        raise EvaluationError("no runs to compare: give at least one run that exists")
    # One point is a value of the table, no curve.
    names = {name for run in runs for name, points in run.history.items() if len(points) > 1} - {RANKS}
    labels = run_labels(runs)
    order = sorted(names, key=curve_order)
    svgs = {name: draw_curves(name, labels, [run.history.get(name, ()) for run in runs]) for name in order}
    curves = {name: out / "curves" / f"{curve_file(name)}.svg" for name in order}
    if len(set(curves.values())) < len(curves):
        raise EvaluationError(f"two curves would be one file: {sorted(names)}; rename one of these metrics")
    for name, place in curves.items():
        write_atomic(place, svgs[name].encode())
    sections = _sections(runs, scores)
    inline = {name: Markup(svg[svg.index("<svg") :]) for name, svg in svgs.items()}
    page = render(
        "comparison.html.jinja",
        title=title,
        runs=labels,
        results=[section for section in sections if section.results],
        others=[section for section in sections if not section.results and not section.folded],
        folded=[section for section in sections if section.folded],
        colours=COLOURS,
        published=published,
        curves={name: svg for name, svg in inline.items() if not name.startswith(SYSTEM)},
        system_curves={name: svg for name, svg in inline.items() if name.startswith(SYSTEM)},
    )
    write_atomic(out / "comparison.html", page.encode())
    links = {name: place.relative_to(out).as_posix() for name, place in curves.items()}
    write_atomic(out / "comparison.md", _markdown(title, sections, links, published).encode())
    return [out / "comparison.html", out / "comparison.md", *curves.values()]


def run_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Names of runs; with the beginning of the id where a name occurs twice."""
    names = [run.name for run in runs]
    return [run.name if names.count(run.name) == 1 else f"{run.name} ({run.run_id[:8]})" for run in runs]


def render(template: str, **values: Any) -> str:
    """One of the pages of this folder with its values; text is escaped, an unknown value is an error."""
    folder = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.globals |= {"absent": ABSENT, "lost_parts": dict(zip(LOST, LOST_NAMES, strict=True))}
    jinja.filters["breakable"] = _breakable
    return jinja.get_template(template).render(**values)


def _breakable(text: str) -> Markup:
    """The text, escaped, with places where a narrow column may break it: after _, / and a dot before a letter."""
    return Markup(re.sub(r"([_/]|\.(?=[A-Za-z]))", r"\1<wbr>", str(escape(text))))


def _sections(runs: Sequence[RunRecord], scores: Sequence[Scores]) -> list[Section]:
    return comparison_sections(run_labels(runs), runs, scores or [{} for _ in runs])


def _rich(section: Section) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=cell(section.title), title_justify="left", caption_justify="left")
    table.title_style, table.caption_style = "bold", "dim"
    if section.note:
        table.caption = cell(section.note)
    table.add_column("", overflow="fold")
    for label in section.columns:
        table.add_column(cell(label), overflow="fold")
    for row in section.rows:
        values = []
        for run, (text, note) in enumerate(_with_notes(row)):
            shown = cell(text)
            if run in row.best:
                shown.stylize("bold green")
            if note:
                shown.append(f"\n{plain(note)}", style="dim")
            values.append(shown)
        table.add_row(cell(row.name), *values)
    return table


def _with_notes(row: Row) -> list[tuple[str, str]]:
    return list(zip(row.values, row.notes or [""] * len(row.values), strict=True))


def _markdown(
    title: str, sections: Sequence[Section], curves: Mapping[str, str], published: PublishedTable | None
) -> str:
    lines = [f"# {_cell(title)}", ""]
    for section in [each for each in sections if each.results]:
        lines += _markdown_section(section)
    if published is not None:
        lines += _published_markdown(published)
    if curves:
        lines += ["## Curves", "", *(f"![{_cell(name)}]({link})" for name, link in curves.items()), ""]
    for section in [each for each in sections if not each.results]:
        lines += _markdown_section(section)
    return "\n".join(lines)


def _markdown_section(section: Section) -> list[str]:
    lines = [f"## {_cell(section.title)}", ""]
    if section.rows:
        lines.append(f"| | {' | '.join(map(_cell, section.columns))} |")
        lines.append("|---" * (len(section.columns) + 1) + "|")
        for row in section.rows:
            shown = []
            for run, (text, note) in enumerate(_with_notes(row)):
                value = f"**{_cell(text)}**" if run in row.best else _cell(text)
                shown.append(f"{value}<br>{_cell(note.replace(chr(10), ', '))}" if note else value)
            lines.append(f"| {_cell(row.name)} | {' | '.join(shown)} |")
        lines.append("")
    return [*lines, _cell(section.note), ""] if section.note else lines


def _published_markdown(published: PublishedTable) -> list[str]:
    lines = ["## Published results (J&F)", "", f"| | {' | '.join(map(_cell, published.columns))} | source |"]
    lines.append("|---" * (len(published.columns) + 2) + "|")
    for row in published.rows:
        name = f"**{_cell(row.system)}**" if row.ours else _cell(row.system)
        sources = _cell("; ".join(row.sources)) or "this project"
        lines.append(f"| {name} | {' | '.join(map(_one_digit, row.metrics))} | {sources} |")
    return [*lines, ""]


def _one_digit(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
