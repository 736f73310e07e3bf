"""Metrics for the terminal, and what a person must know to read them."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from glus.common.terminal import cell, one_line, plain
from glus.evaluation.results.mean_metrics import WHERE_LOST, MeanMetrics
from glus.evaluation.results.summary import Summary

WIDTH = 140
SHOWN_NAMES = 5
"""How many names a message lists."""


def print_metrics(summary: Summary, missing: Sequence[str], places: Sequence[Path]) -> None:
    """Print the table, what is missing or looks wrong, and what was written."""
    console = Console()
    if not console.is_terminal:  # a pipe has no width of its own; rich's 80 columns would break the names
        console = Console(width=WIDTH)
    console.print(metrics_table(summary))
    if summary.overall.lost_mask is not None:
        console.print(lost_table(summary))
    if missing:
        print(f"PARTIAL: {len(missing)} predictions are missing and count as 0: {listed(missing)}")
    for benchmark in summary.benchmarks:
        if benchmark.left_out:
            name, count = f"{benchmark.dataset}/{benchmark.split}", len(benchmark.left_out)
            absent = f"{count} videos of {plain(name)} are not in the shards (quarantine)"
            print(f"PARTIAL: {absent}: {listed(benchmark.left_out)}")
    if summary.exchanged:
        print(f"these predictions each fit the other's target: were ids exchanged? {listed(summary.exchanged)}")
    for note in summary.notes:
        print(plain(note))
    print(f"missing predictions: {len(missing)}")
    for place in places:
        print(plain(f"written: {place}"))


def metrics_table(summary: Summary) -> Table:
    """Benchmarks, second protocols, breakdowns, then all: J, F, J&F with its interval, the text control."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("benchmark")
    for name in ("expressions", "J", "F", "J&F", "95 %", "text control", "drop"):
        table.add_column(name, justify="right")
    for benchmark in (*summary.benchmarks, *summary.variants):
        name = f"{benchmark.benchmark} (partial)" if benchmark.partial else benchmark.benchmark
        table.add_row(cell(name), *_cells(benchmark.metrics))
        if benchmark.metrics.gIoU is not None:
            table.add_row(f"  {_overlap(benchmark.metrics)}", style="dim")
            for group, metrics in benchmark.groups.items():
                table.add_row(cell(f"  {group}: {_overlap(metrics)}"), *_cells(metrics), style="dim")
        if benchmark.average == "referring-reasoning":
            for group in ("referring", "reasoning"):
                if group in benchmark.groups:
                    table.add_row(f"  {group}", *_cells(benchmark.groups[group]), style="dim")
            if benchmark.metrics.A is not None:
                table.add_row(
                    f"  accuracy {benchmark.metrics.A:.1f}, robustness {benchmark.metrics.R:.1f}", style="dim"
                )
    table.add_section()
    for kind, metrics in summary.kinds.items():
        table.add_row(cell(f"kind: {kind}"), *_cells(metrics))
    for title, parts in summary.breakdowns.items():
        if title != "kind":
            for part, metrics in parts.items():
                table.add_row(cell(f"{title}: {part}"), *_cells(metrics))
    table.add_section()
    table.add_row("all expressions", *_cells(summary.overall), style="bold")
    return table


def _overlap(metrics: MeanMetrics) -> str:
    """Measures of image benchmarks; cIoU is undefined where no mask has a pixel."""
    cumulative = "-" if metrics.cIoU is None else f"{metrics.cIoU:.1f}"
    return f"gIoU {metrics.gIoU:.1f}, cIoU {cumulative}"


def lost_table(summary: Summary) -> Table:
    """Where J is lost: with J the parts add up to 100."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("where J is lost")
    for name in WHERE_LOST.values():
        table.add_column(name, justify="right")
    rows = {each.benchmark: each.metrics for each in summary.benchmarks if each.scored}
    rows |= {f"kind: {kind}": metrics for kind, metrics in summary.kinds.items()}
    for name, metrics in (rows | {"all expressions": summary.overall}).items():
        table.add_row(cell(name), *(_shown(getattr(metrics, key)) for key in WHERE_LOST))
    return table


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return one_line(", ".join(names[:SHOWN_NAMES]) + more)


def _cells(metrics: MeanMetrics) -> list[str]:
    interval = metrics.intervals.get("JF")
    return [
        str(metrics.expressions),
        *(_shown(value) for value in (metrics.J, metrics.F, metrics.JF)),
        "–" if interval is None else f"{interval.low:z.1f} to {interval.high:z.1f}",
        *(_shown(value) for value in (metrics.control_JF, metrics.drop)),
    ]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:z.1f}"
