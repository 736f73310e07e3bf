"""The micro-batches of one optimiser step: forward, all losses, backward. The same for every engine."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from glus.training.contrast import ContrastiveLoss
from glus.training.distributed import Rank


class Output(Protocol):
    """The output of a model for a micro-batch (model/glus.py)."""

    @property
    def losses(self) -> Mapping[str, Tensor]: ...
    @property
    def loss(self) -> Tensor: ...
    @property
    def seg_states(self) -> Tensor: ...


@dataclass
class Accumulated:
    """A rank's results of a step: means of its losses, and of each micro-batch its loss and expressions' names."""

    means: dict[str, Tensor] = field(default_factory=dict)
    micro_batches: list[tuple[Tensor, list[str]]] = field(default_factory=list)

    def add(self, name: str, value: Tensor, parts: int) -> None:
        self.means[name] = self.means.get(name, 0) + value.detach().float() / parts

    def over_ranks(self, rank: Rank) -> dict[str, float]:
        """The means over all ranks; all ranks call it."""
        stacked = torch.stack(list(self.means.values()))
        if rank.ranks > 1:
            torch.distributed.all_reduce(stacked, op=torch.distributed.ReduceOp.SUM)
            stacked /= rank.ranks
        return dict(zip(self.means, stacked.tolist(), strict=True))


def accumulate(
    batches: Iterator[Any],
    parts: int,
    forward: Callable[[Any], Output],
    backward: Callable[[Tensor], None],
    device: torch.device,
    contrast: ContrastiveLoss | None = None,
    step: int = 0,
) -> Accumulated:
    """Take `parts` micro-batches; `backward` gets the sum of losses of each, or of several where these are contrasted.

    `contrast.each` must divide `parts`. The means are total, the model's losses, and with `contrast` also
    "contrastive" and "contrastive_share", the part of [SEG] states that had something to be compared with.
    """
    found = Accumulated()
    each = contrast.each if contrast else 1
    for turn in range(parts // each):
        read, outputs = [], []
        for _ in range(each):  # one after the other: what is drawn for a batch is drawn when it is read
            read.append(next(batches).to(device))
            outputs.append(forward(read[-1]))
        loss = torch.stack([output.loss for output in outputs]).sum()
        for output, batch in zip(outputs, read, strict=True):
            found.micro_batches.append((output.loss.detach(), list(getattr(batch, "names", []))))
            for name, value in output.losses.items():
                found.add(name, value, parts)
        if contrast:
            pairs = [(output.seg_states, batch) for output, batch in zip(outputs, read, strict=True)]
            contrasted = contrast.loss(pairs, step, turn)
            loss = loss + contrasted.loss
            found.add("contrastive", contrasted.loss, parts)
            found.add("contrastive_share", contrasted.anchors / max(contrasted.states, 1), parts // each)
        found.add("total", loss, parts)
        backward(loss)
    return found
