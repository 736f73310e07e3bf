"""The object-contrastive loss of a run: over the micro-batches of several ranks, or against each rank's own bank."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional

from glus.common.errors import TrainingError
from glus.common.files import is_there
from glus.common.seeds import torch_generator
from glus.model.contrastive import BatchIds, Contrasted, SegTokens, TokenBank, object_contrastive_loss
from glus.model.model_config import LossConfig
from glus.model.released.safetensors_file import open_tensors, save_tensors
from glus.training.distributed import Rank

#: One micro-batch: its [SEG] states, float [E, Q, C], and the batch that they are of.
Read = tuple[Tensor, BatchIds]


def pool_shape(together: int, ranks: int, most: int = 1) -> tuple[int, int]:
    """(ranks, micro-batches of each) whose states are compared with each other; `together` 0 is one of each rank.

    Pools hold consecutive micro-batches of the sample plan, so the same `together` compares the same states whatever
    the number of ranks. `most`: micro-batches of one rank that the engine can take at once.
    Raises TrainingError where ranks cannot form such pools.
    """
    wide = min(together or ranks, ranks)
    each = (together or ranks) // wide
    if ranks % wide or (together or ranks) % wide:
        raise TrainingError(
            f"engine.contrast_together={together} does not fit {ranks} ranks: choose a divisor of {ranks}, or 0 for all"
        )
    if each > most:
        raise TrainingError(
            f"engine.contrast_together={together} is more than the {ranks} ranks there are: choose at most {ranks}, "
            "or engine.stage=plain on one rank, which takes several micro-batches at once"
        )
    return wide, each


class ContrastiveLoss:
    """Gives the loss of what this rank read. The ranks stand together before it is made: pools are process groups."""

    def __init__(
        self,
        config: LossConfig,
        rank: Rank,
        seed: int,
        wide: int = 1,
        each: int = 1,
        splits: Sequence[int] | None = None,
    ):
        """`splits` are the numbers of the sample plan's splits that take part; None is all."""
        self.config, self.rank, self.seed = config, rank, seed
        self._wide, self.each, self._splits = wide, each, splits
        self._bank: TokenBank | None = None
        if config.contrastive_pool == "bank":
            self._bank = TokenBank(config.bank_size, config.bank_negatives, config.contrastive_temperature)
            self.each = 1
        self._group: ProcessGroup | None = None
        if self._bank is None and 1 < wide < rank.ranks:
            # Every rank makes all groups, as torch wants it.
            firsts = range(0, rank.ranks, wide)
            groups = [torch.distributed.new_group(list(range(first, first + wide))) for first in firsts]
            self._group = groups[rank.rank // wide]

    def loss(self, read: Sequence[Read], step: int, turn: int) -> Contrasted:
        """The weighted loss of the micro-batches `read` (`each` of them) at turn `turn` of a step.

        Scaled so that adding it to the sum of these micro-batches' losses, and meaning over all micro-batches of all
        ranks, gives the mean over pools. In the graph whatever they hold. Every rank calls it.
        """
        config = self.config
        tokens = _joined([SegTokens.of(states, batch, self._splits) for states, batch in read])
        if self._bank is not None:
            random = torch_generator(self.seed, step, turn, self.rank.rank)
            found = self._bank.loss(tokens, random)
            return replace(found, loss=config.contrastive * found.loss)
        own = slice(0, len(tokens.states))
        if self._wide > 1:
            tokens, own = _gather(tokens, self._group)
        found = object_contrastive_loss(tokens, config.contrastive_temperature, config.contrastive_frames, own)
        return replace(found, loss=config.contrastive * found.loss * (self._wide * len(read)))

    def save(self, folder: Path) -> None:
        """Write this rank's bank, if it keeps one, into `folder`. Raises TrainingError on a full disk."""
        state = self._bank.state() if self._bank else {}
        if not state:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_tensors(state, folder / self._file)
        except OSError as error:
            raise TrainingError(f"{folder / self._file} could not be written ({error}): free some room") from error

    def load(self, folder: Path) -> None:
        """Go on with this rank's bank; empty where none was written. Raises TrainingError where it is damaged."""
        place = folder / self._file
        if self._bank is None or not is_there(place):
            return
        try:
            with open_tensors(place) as stored:
                state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  safe_open has no items
            known = self._bank.restore(state, self.rank.device)
        except (OSError, SafetensorError, KeyError) as error:
            raise TrainingError(f"{place} cannot be read ({error}): use another checkpoint") from error
        if not known:
            print(
                f"WARNING: {place} was written by an older version: the bank of the contrastive loss begins empty",
                flush=True,
            )

    @property
    def _file(self) -> str:
        return f"rank-{self.rank.rank:05d}.safetensors"


def _joined(parts: Sequence[SegTokens]) -> SegTokens:
    if len(parts) == 1:
        return parts[0]
    width = max(part.objects.shape[1] for part in parts)
    return SegTokens(
        torch.cat([part.states for part in parts]),
        torch.cat([part.video for part in parts]),
        torch.cat([part.expression for part in parts]),
        torch.cat([part.frame for part in parts]),
        torch.cat([_widened(part.objects, width) for part in parts]),
    )


def _gather(tokens: SegTokens, group: ProcessGroup | None) -> tuple[SegTokens, slice]:
    """The tokens of all ranks of a pool, and which of them are this rank's."""
    device = tokens.states.device
    counts, width = row_counts(len(tokens.states), tokens.objects.shape[1], device, group)
    numbers = torch.stack([tokens.video, tokens.expression, tokens.frame], dim=1)
    packed = torch.cat([numbers, _widened(tokens.objects, width).long()], dim=1)
    packed = gather_rows(packed.to(device, non_blocking=True), counts, group)
    states = gather_rows(tokens.states.float(), counts, group)
    first = sum(counts[: torch.distributed.get_rank(group)])
    found = SegTokens(states, packed[:, 0], packed[:, 1], packed[:, 2], packed[:, 3:].bool())
    return found, slice(first, first + len(tokens.states))


def _widened(objects: Tensor, width: int) -> Tensor:
    return functional.pad(objects, (0, width - objects.shape[1]))


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
