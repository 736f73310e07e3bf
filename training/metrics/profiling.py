"""Profile a few steps, operation by operation, with torch's profiler on rank 0.

OUT/profile/trace.json         for Perfetto (ui.perfetto.dev) or chrome://tracing
OUT/profile/operations.txt     the operations that took most of the time
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from glus.training.distributed import Rank

FOLDER, TRACE, OPERATIONS = "profile", "trace.json", "operations.txt"
#: Steps before the traced ones: memory is allocated and kernels are chosen in these.
BEFORE = 2
_ROWS = 40


@contextlib.contextmanager
def profiled(steps: int, out: Path, rank: Rank) -> Iterator[Callable[[], None]]:
    """Trace `steps` steps after the first two, on rank 0; gives what is to be called after each step. 0 traces none."""
    if not steps or rank.rank > 0:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU]
    if rank.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def write(profiler: profile) -> None:
        folder = out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / TRACE))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=_ROWS)
        (folder / OPERATIONS).write_text(table, encoding="utf-8")
        print(f"profile of {steps} steps: {folder}", flush=True)

    order = schedule(wait=BEFORE - 1, warmup=1, active=steps, repeat=1)
    with profile(activities=activities, schedule=order, on_trace_ready=write, record_shapes=True) as profiler:
        yield profiler.step
