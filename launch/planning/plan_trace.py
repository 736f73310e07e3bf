"""`glus plan --trace CONFIG`: one micro-batch and a short video on a CUDA device that is not there, as tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from glus.common.terminal import cell, one_line
from glus.training.run_config import RunConfig
from glus.training.trace.allowed_syncs import TRAINING, check_syncs
from glus.training.trace.gpus import gpu_named
from glus.training.trace.ledger import Ledger, PartCost
from glus.training.trace.traced import FRAMES, Sizes, Traced, trace_training, trace_video

GIB, TERA, MILLI = 2**30, 10**12, 1e-3
REFUSED = 2
#: Columns in which every table has room.
_WIDEST = 1000


def print_trace(config: RunConfig, gpu: str, sizes: Sizes, video: bool = True) -> int:
    """Trace a run's micro-batch (and GLUS's video) and print what was found; returns 0, or 2 where it is refused.

    Refused are tensors of two devices in one operation, large products in float32 where the run is in bf16, and host
    syncs that training/trace/allowed_syncs.py does not list.
    Raises TrainingError for an unknown GPU and for a method that is not traced.
    """
    sheet = gpu_named(gpu)
    traced = trace_training(config, sheet, sizes)
    console = Console()
    title = f"{config.name}: one micro-batch of {config.engine.micro_batch_size} videos on {sheet.name}"
    print_phases(console, title, traced, ("forward", "losses", "backward"))
    syncs = check_syncs(traced.ledger.syncs, TRAINING)
    for line in (*_memory(traced), f"host syncs of every micro-batch: {syncs.repeated}"):
        print(line)
    if traced.without_gradient:
        print(one_line(f"trained and without a gradient here: {', '.join(traced.without_gradient)}"))
    for times, what, place, reason in syncs.rows:
        print(f"  {times} x {what} ({place}): {reason}")
    problems = [*_lines(traced.ledger.problems), *syncs.refused]
    if video:
        played = trace_video(config, sheet, sizes)
        print_phases(console, f"a video of {FRAMES} frames, bf16", played, ("video",))
        waits = sum(played.ledger.syncs.values()) / FRAMES
        print(f"peak {played.ledger.peak / GIB:.2f} GiB, {waits:.1f} host syncs a frame")
        problems += _lines(played.ledger.problems)
    for problem in problems:
        print(one_line(f"!!  {problem}"), flush=True)
    return REFUSED if problems else 0


def _lines(problems: Counter[str]) -> Iterator[str]:
    return (f"{what} ({times} times)" if times > 1 else what for what, times in problems.items())


def _memory(traced: Traced) -> Sequence[str]:
    ledger = traced.ledger
    return (
        f"memory: parameters {traced.parameters / GIB:.2f} GiB (complete, on one GPU), gradients "
        f"{traced.gradients / GIB:.2f}, peak {ledger.peak / GIB:.2f} in the {ledger.peak_in} pass: "
        f"{(ledger.peak - traced.parameters) / GIB:.2f} GiB more than the parameters",
    )


def print_phases(console: Console, title: str, traced: Traced, phases: Sequence[str]) -> None:
    """One table of all phases, or one for each where the terminal is too narrow: no number is cut off."""
    table = _table(title, traced, phases)
    if Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum <= console.width:
        console.print(table)
        return
    for phase in phases:
        console.print(_table(title, traced, (phase,)))


def _table(title: str, traced: Traced, phases: Sequence[str]) -> Table:
    """A row a part: memory at the peak, then FLOP, kernels and roofline of each phase, and their sums."""
    ledger = traced.ledger
    table = Table(box=box.SIMPLE_HEAD, title=cell(title))
    table.add_column("part")
    table.add_column("GiB at the peak", justify="right")
    for phase in phases:
        table.add_column(f"{phase}: 10^12 FLOP", justify="right")
        table.add_column("kernels", justify="right")
        table.add_column("ms", justify="right")
    parts = sorted(_parts(ledger, phases), key=lambda part: -_seconds(ledger.costs, part, phases))
    for part in parts:
        table.add_row(part, *_cells([ledger.costs.get((phase, part), PartCost()) for phase in phases], ledger, part))
    sums = [_sum(cost for (of, _), cost in ledger.costs.items() if of == phase) for phase in phases]
    table.add_row("in all", *_cells(sums, ledger, None), end_section=True)
    return table


def _parts(ledger: Ledger, phases: Sequence[str]) -> set[str]:
    computed = {part for phase, part in ledger.costs if phase in phases}
    return computed | {part for part, size in ledger.peak_by.items() if size > 0}


def _seconds(costs: Mapping[tuple[str, str], PartCost], part: str, phases: Sequence[str]) -> float:
    return sum(cost.seconds for (phase, of), cost in costs.items() if of == part and phase in phases)


def _cells(costs: Sequence[PartCost], ledger: Ledger, part: str | None) -> Iterator[str]:
    yield f"{(ledger.peak if part is None else ledger.peak_by.get(part, 0)) / GIB:.2f}"
    for cost in costs:
        yield f"{cost.flop / TERA:,.2f}"
        yield f"{cost.kernels:,}"
        yield f"{cost.seconds / MILLI:,.1f}"


def _sum(costs: Iterator[PartCost]) -> PartCost:
    total = PartCost()
    for cost in costs:
        total.flop += cost.flop
        total.seconds += cost.seconds
        total.kernels += cost.kernels
    return total
