"""Several runs side by side: what differs in their parameters, their metrics, their curves."""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.terminal import cell, cells
from glus.evaluation.results.directions import direction
from glus.evaluation.results.published_results import PublishedTable
from glus.evaluation.results.summary import EVALUATION, partial_flag

ABSENT = "–"
_COLOURS = ("#2f6fed", "#e8590c", "#2b9348", "#9c36b5", "#c2255c", "#0c8599", "#a07800", "#6c757d")
_GREY = "#868e96"
#: Matplotlib computes with differences and margins of the values, which overflow beyond it.
_FARTHEST = 1e300
#: Bytes of a file's name, without its ending.
_LONGEST_NAME = 200


class RunRecord(Protocol):
    """A training or evaluation run, wherever it is kept (training/tracking/recorded_runs.py yields them).

    `metrics` are last values; `history[name]` holds (step, value) in the order of steps.
    """

    @property
    def run_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def history(self) -> Mapping[str, Sequence[tuple[int, float]]]: ...


@dataclass(frozen=True)
class Row:
    """One line of a comparison: each run's value as text (ABSENT where it has none), and the runs that are best."""

    name: str
    values: tuple[str, ...]
    best: tuple[int, ...] = ()


def compare_params(params: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each parameter that is not the same in all runs, by name. Values are compared as text."""
    names = sorted({name for one in params for name in one})
    rows = [Row(name, tuple(str(one[name]) if name in one else ABSENT for one in params)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def compare_metrics(metrics: Sequence[Mapping[str, float | None]], partial: Sequence[bool] = ()) -> list[Row]:
    """A row for each metric of any run, by name. The best value is the one that its direction says (directions.py).

    Values that are shown alike are equal; all of the best are marked, none where all are equal or the metric has no
    direction. A value that is not finite is never the best, nor is any of a `partial` run, nor the eval/... of one
    whose eval/partial is not 0, nor the eval/key_frames/... of one whose eval/key_frames/partial is not.
    """
    rows = []
    for name in sorted({name for one in metrics for name in one}):
        texts = [ABSENT if one.get(name) is None else f"{one[name]:.4g}" for one in metrics]
        # float(): what is shown alike is equal.
        known = {run: float(text) for run, text in enumerate(texts) if text != ABSENT and math.isfinite(float(text))}
        of_eval = name.startswith(EVALUATION) and name != partial_flag(name)
        apart = {run for run, one in enumerate(metrics) if of_eval and one.get(partial_flag(name))}
        apart |= {run for run, flag in enumerate(partial) if flag}
        known = {run: value for run, value in known.items() if run not in apart}
        wanted = direction(name)
        best: tuple[int, ...] = ()
        if wanted and len(set(known.values())) > 1:
            top = max(known.values()) if wanted == "higher" else min(known.values())
            best = tuple(run for run, value in known.items() if value == top)
        rows.append(Row(name, tuple(texts), best))
    return rows


def comparison_table(runs: Sequence[RunRecord]) -> Table:
    """The comparison for the terminal: parameters that differ, then metrics, a column a run; the best is bold."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{len(runs)} runs", title_justify="left")
    table.add_column("", overflow="fold")
    for label in run_labels(runs):
        table.add_column(cell(label), overflow="fold")
    for row in compare_params([run.params for run in runs]):
        table.add_row(*cells((row.name, *row.values)), style="dim")
    table.add_section()
    for row in compare_metrics([run.metrics for run in runs]):
        shown = [f"[bold green]{text}[/]" if i in row.best else text for i, text in enumerate(row.values)]
        table.add_row(cell(row.name), *shown)
    return table


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
    runs: Sequence[RunRecord], out: Path, title: str = "Runs compared", published: PublishedTable | None = None
) -> list[Path]:
    """Write comparison.html (curves inline), comparison.md and curves/NAME.svg into `out`.

    `published` shows published results next to them, each with its source. Returns the places, the page first.
    Raises EvaluationError for no runs, DataError where `out` cannot be written.
    """
    if not runs:
        raise EvaluationError("no runs to compare: give at least one run that exists")
    # One point is a value of the table, no curve.
    names = sorted({name for run in runs for name, points in run.history.items() if len(points) > 1})
    labels = run_labels(runs)
    svgs = {name: draw_curves(name, labels, [run.history.get(name, ()) for run in runs]) for name in names}
    params, metrics = compare_params([run.params for run in runs]), compare_metrics([run.metrics for run in runs])
    curves = {name: out / "curves" / f"{_file_name(name)}.svg" for name in names}
    if len(set(curves.values())) < len(curves):
        raise EvaluationError(f"two curves would be one file: {sorted(names)}; rename one of these metrics")
    for name, place in curves.items():
        write_atomic(place, svgs[name].encode())
    page = render(
        "comparison.html.jinja",
        title=title,
        runs=labels,
        params=params,
        metrics=metrics,
        colours=_COLOURS,
        published=published,
        curves={name: Markup(svg[svg.index("<svg") :]) for name, svg in svgs.items()},
    )
    write_atomic(out / "comparison.html", page.encode())
    links = {name: place.relative_to(out).as_posix() for name, place in curves.items()}
    text = _markdown(title, labels, params, metrics, links) + _published_markdown(published)
    write_atomic(out / "comparison.md", text.encode())
    return [out / "comparison.html", out / "comparison.md", *curves.values()]


def draw_curves(name: str, labels: Sequence[str], lines: Sequence[Sequence[tuple[int, float]]]) -> str:
    """One metric over steps, a line a run, as SVG text; the same input gives the same bytes.

    A value that is not finite is a gap, one beyond 1e300 is drawn there: the line below counts both.
    """
    every = [value for points in lines for _, value in points]
    gaps = sum(not math.isfinite(value) for value in every)
    beyond = sum(abs(value) > _FARTHEST for value in every) - sum(math.isinf(value) for value in every)
    notes = [f"{gaps} not finite"] * bool(gaps) + [f"{beyond} beyond {_FARTHEST:g}"] * bool(beyond)
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        fig = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = fig.add_subplot()
        for index, (label, points) in enumerate(zip(labels, lines, strict=True)):
            if points:
                marker = "o" if len(points) < 12 else ""
                colour = _COLOURS[index % len(_COLOURS)]
                steps, values = zip(*points, strict=True)
                values = tuple(min(max(v, -_FARTHEST), _FARTHEST) if math.isfinite(v) else math.nan for v in values)
                axes.plot(steps, values, label=label, color=colour, linewidth=1.8, marker=marker, markersize=3)
        axes.set_title(name, color=_GREY, fontsize=10, loc="left", parse_math=False)
        axes.set_xlabel(", ".join(["step", *notes]), color=_GREY, fontsize=9)
        axes.tick_params(colors=_GREY, labelsize=9)
        axes.set_facecolor("none")
        axes.grid(color=_GREY, alpha=0.2, linewidth=0.6)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_GREY)
        stream = io.StringIO()
        fig.savefig(stream, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def run_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Names of runs; with the beginning of the id where a name occurs twice."""
    names = [run.name for run in runs]
    return [run.name if names.count(run.name) == 1 else f"{run.name} ({run.run_id[:8]})" for run in runs]


def render(template: str, **values: Any) -> str:
    """One of the pages of this folder with its values; text is escaped, an unknown value is an error."""
    folder = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.globals["absent"] = ABSENT
    return jinja.get_template(template).render(**values)


def _markdown(
    title: str, labels: Sequence[str], params: Sequence[Row], metrics: Sequence[Row], curves: Mapping[str, str]
) -> str:
    lines = [f"# {_cell(title)}", ""]
    for heading, rows in (("Parameters that differ", params), ("Metrics", metrics)):
        lines += [f"## {heading}", ""]
        if not rows:
            lines += ["None.", ""]
            continue
        lines.append(f"| | {' | '.join(map(_cell, labels))} |")
        lines.append("|---" * (len(labels) + 1) + "|")
        for row in rows:
            shown = [f"**{_cell(text)}**" if i in row.best else _cell(text) for i, text in enumerate(row.values)]
            lines.append(f"| {_cell(row.name)} | {' | '.join(shown)} |")
        lines.append("")
    if curves:
        lines += ["## Curves", "", *(f"![{_cell(name)}]({link})" for name, link in curves.items()), ""]
    return "\n".join(lines)


def _published_markdown(published: PublishedTable | None) -> str:
    if published is None:
        return ""
    lines = ["", "## Published results (J&F)", "", f"| | {' | '.join(map(_cell, published.columns))} | source |"]
    lines.append("|---" * (len(published.columns) + 2) + "|")
    for row in published.rows:
        name = f"**{_cell(row.system)}**" if row.ours else _cell(row.system)
        sources = _cell("; ".join(row.sources)) or "this project"
        lines.append(f"| {name} | {' | '.join(map(_one_digit, row.metrics))} | {sources} |")
    return "\n".join([*lines, ""])


def _one_digit(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _file_name(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    if len(kept.encode()) <= _LONGEST_NAME:
        return kept
    start = kept.encode()[: _LONGEST_NAME - 17].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
