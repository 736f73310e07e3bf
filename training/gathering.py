"""Rows of all ranks on every rank, with their gradient, however many each has."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional


class _Gather(torch.autograd.Function):
    """Rows of every rank one after the other. Backward: the gradients of all ranks for one's own rows, summed."""

    @staticmethod
    def forward(context: Any, rows: Tensor, counts: list[int], group: ProcessGroup | None) -> Tensor:
        context.place, context.group = torch.distributed.get_rank(group), group
        context.counts = counts
        return _gathered(rows, counts, group)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous()
        torch.distributed.all_reduce(gradient, op=torch.distributed.ReduceOp.SUM, group=context.group)
        return gradient.split(context.counts)[context.place], None, None


def row_counts(rows: int, width: int, device: torch.device, group: ProcessGroup | None) -> tuple[list[int], int]:
    """Rows of each rank of `group`, and the largest `width` among them."""
    mine = torch.tensor([rows, width], device=device)
    found = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(found, mine, group=group)
    pairs: list[list[int]] = torch.stack(found).tolist()
    return [count for count, _ in pairs], max(width for _, width in pairs)


def gather_rows(rows: Tensor, counts: Sequence[int], group: ProcessGroup | None) -> Tensor:
    """[n, C] of this rank -> [sum of counts, C], in the order of ranks. Every rank of `group` calls it.

    With gradient where `rows` is of a graph: each rank's backward pass must then reach it.
    """
    if rows.requires_grad:
        return _Gather.apply(rows, list(counts), group)
    return _gathered(rows, list(counts), group)


def _gathered(rows: Tensor, counts: list[int], group: ProcessGroup | None) -> Tensor:
    most = max(counts)
    padded = functional.pad(rows.detach(), (0, 0, 0, most - len(rows))).contiguous()
    found = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(found, padded, group=group)
    return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])
