"""What happens on the pretended device, added up: memory, FLOP, kernels, roofline by part; host syncs; problems."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from glus.training.trace.gpus import Gpu
from glus.training.trace.parts import Parts, Where
from glus.training.trace.pretended_cuda import Allocation

#: Shares of the data sheet's peak and bandwidth that good kernels reach, and the least seconds of a kernel.
REACHED_PEAK, REACHED_BANDWIDTH, LEAST_SECONDS = 0.65, 0.85, 3e-6
#: A matrix product in float32 above this many FLOP is a problem where the model computes in bf16.
LARGE = 10**9


@dataclass(frozen=True)
class Sync:
    """The host waits for the GPU: what for, where in the code, and in which phase."""

    phase: str
    what: str
    where: Where


@dataclass
class PartCost:
    """Costs of one part."""

    flop: float = 0.0
    seconds: float = 0.0
    kernels: int = 0


@dataclass
class Ledger:
    """The observer of a trace. `phase` is set by who runs it; costs are kept by (phase, part)."""

    gpu: Gpu
    half: bool
    phase: str = "parameters"
    parts: Parts = field(default_factory=Parts)
    costs: dict[tuple[str, str], PartCost] = field(default_factory=dict)
    syncs: Counter[Sync] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    held: int = 0
    held_by: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    peak_by: dict[str, int] = field(default_factory=dict)
    peak_in: str = ""
    _at: Where | None = None

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count what happens as of `phase`."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def began(self) -> None:
        """Another operation is dispatched."""
        self._at = None

    def _here(self) -> Where:
        if self._at is None:
            self._at = self.parts.now()
        return self._at

    def allocated(self, size: int) -> Allocation:
        """Memory is taken."""
        part = self.phase if self.phase in ("parameters", "batch") else self._here().part
        self.held += size
        self.held_by[part] += size
        if self.held > self.peak:
            self.peak, self.peak_by, self.peak_in = self.held, dict(self.held_by), self.phase
        return Allocation(size, part, self._freed)

    def _freed(self, allocation: Allocation) -> None:
        self.held -= allocation.size
        self.held_by[allocation.part] -= allocation.size

    def synced(self, what: str) -> None:
        """The host waits."""
        self.syncs[Sync(self.phase, what, self._here())] += 1

    def mixed(self, operation: str, shapes: Sequence[torch.Size]) -> None:
        """An operation takes tensors of two devices, which CUDA refuses."""
        found = self._here()
        sizes = ", ".join(str(list(shape)) for shape in shapes)
        self.problems[f"{found.place or found.part}: {operation} of a CUDA tensor with one of the CPU ({sizes})"] += 1

    def launched(self, operation: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], flop: float) -> None:
        """A kernel runs."""
        found = self._here()
        floating = [each.dtype for each in (*inputs, *outputs) if each.dtype.is_floating_point]
        kind = floating[0] if floating else torch.float32
        moved = sum(map(_bytes, inputs)) + sum(map(_bytes, outputs))
        peak = self.gpu.peak.get(kind, self.gpu.peak[torch.float32])
        cost = self.costs.setdefault((self.phase, found.part), PartCost())
        cost.flop += flop
        cost.kernels += 1
        cost.seconds += max(
            flop / (REACHED_PEAK * peak), moved / (REACHED_BANDWIDTH * self.gpu.bandwidth), LEAST_SECONDS
        )
        if self.half and kind == torch.float32 and flop > LARGE:
            name = operation._schema.name.removeprefix("aten::")
            self.problems[
                f"{found.place or found.part} ({found.part}): {name} of {flop / 1e9:.0f} GFLOP in float32"
            ] += 1


def flop_of(operation: Any, args: Any, kwargs: Any, out: Any) -> float:
    """FLOP of an operation by torch's own table (products, convolutions, attention), 0 for any other."""
    formula: Callable[..., int] | None = flop_registry.get(operation._overloadpacket)
    if formula is None:
        return 0.0
    return float(formula(*args, **{key: value for key, value in kwargs.items() if key != "device"}, out_val=out))


def _bytes(tensor: Tensor) -> int:
    """Bytes that are read or written: those of an expanded tensor once."""
    if not tensor.numel():
        return 0
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride else 1
    return elements * tensor.element_size()
