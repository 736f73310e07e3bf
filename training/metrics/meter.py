"""Speed, waiting time and memory of training steps, summed over ranks when metrics are recorded."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch

from glus.data_pipeline.batches.batch import Batch
from glus.model.language.prompt_rows import tokens_read
from glus.model.model_config import ModelConfig
from glus.training.distributed import Rank
from glus.training.metrics.cost import Load, StepCost
from glus.training.metrics.prompt_tokens import READINGS, Shown


@dataclass
class _Window:
    """Sums since metrics were last taken."""

    steps: int = 0
    stepping: float = 0.0
    waited: float = 0.0
    tokens: int = 0
    frames: int = 0
    flop: float = 0.0


class Meter(Iterator[Batch]):
    """Counts the batches that the engine takes. `cost` gives their FLOP; `peak_flops` is of one device, 0 unknown.

    `metrics` are over the steps since the last call: tokens and frames a second (of all ranks), the share of step
    time spent waiting for data, the share of all time outside the engine, memory, the number of ranks, and MFU:
        model FLOP of the steps (cost.py, without recomputation) / (their seconds * ranks * peak FLOP a second)
    """

    def __init__(
        self, batches: Iterator[Batch], config: ModelConfig, rank: Rank, cost: StepCost | None, peak_flops: float
    ):
        self._batches, self._config, self._rank = batches, config, rank
        self._cost, self._peak = cost, peak_flops
        self._window = _Window()
        self._began = self._since = time.perf_counter()

    def __next__(self) -> Batch:
        began = time.perf_counter()
        batch = next(self._batches)
        self._window.waited += time.perf_counter() - began
        videos, queries, expressions = len(batch.frames), batch.query.shape[1], len(batch.names)
        shown, reading = Shown(batch.context.shape[1], queries), READINGS[self._config.method]
        frames, image = reading.frames(shown), reading.image_tokens(self._config, shown)
        share = self._config.shares_beginnings
        tokens = tokens_read(batch.ids, batch.attention, image, batch.video_of, share)
        self._window.tokens += tokens
        self._window.frames += videos * frames
        if self._cost:
            load = Load(videos, frames, queries, expressions, tokens, 0)
            self._window.flop += self._cost.model_flop(load)
        return batch

    def begin(self) -> None:
        """Begin a step."""
        self._began = time.perf_counter()

    def end(self) -> float:
        """End a step; returns its seconds."""
        seconds = time.perf_counter() - self._began
        self._window.steps += 1
        self._window.stepping += seconds
        return seconds

    def leave_out(self, seconds: float) -> None:
        """Leave out time that belongs to no step, such as that of a checkpoint."""
        self._since += seconds

    def metrics(self) -> dict[str, float]:
        """Return what to record; every rank calls it at the same step."""
        found, self._window = self._window, _Window()
        now = time.perf_counter()
        elapsed, self._since = now - self._since, now
        seconds = max(found.stepping, 1e-9)
        tokens, frames, flop, waited = self._rank.sum_of([found.tokens, found.frames, found.flop, found.waited])
        [memory] = self._rank.all_reduce_max([_memory(self._rank.device)])
        metrics = {
            "step_seconds": seconds / max(found.steps, 1),
            "tokens_per_second": tokens / seconds,
            "frames_per_second": frames / seconds,
            "waiting_for_data_share": waited / self._rank.ranks / seconds,
            "outside_step_share": max(elapsed - found.stepping, 0.0) / max(elapsed, 1e-9),
            "memory_gib": memory / 2**30,
            "ranks": float(self._rank.ranks),
        }
        if flop and self._peak:
            metrics["mfu"] = flop / (seconds * self._rank.ranks * self._peak)
        return metrics


def _memory(device: torch.device) -> int:
    """Bytes: the most that torch held on a GPU, or what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
