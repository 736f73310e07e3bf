"""Object-contrastive loss over [SEG] states that were read together.

The paper's loss pulls together [SEG] states of expressions for one object and pushes others apart. The reference does
so against a bank of past states (`TokenBank`); here what is read together holds the partners, because the sample plan
groups slots by object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

#: Whether the states of an object's other expressions are positives in the same frame only, or in all its frames.
Frames = Literal["same", "all"]


class BatchIds(Protocol):
    """The fields of a batch that identify its [SEG] states. Shapes: data_pipeline/batches/batch.py."""

    query_numbers: Tensor
    video_of: Tensor
    split: Tensor
    video_key: Tensor
    expression: Tensor
    objects: Tensor


@dataclass(frozen=True)
class SegTokens:
    """N [SEG] states and what each stands for.

    states: float [N, C]; video, expression (within its video), frame: int64 [N]; objects: bool [N, O], the object
    set, as columns of its video. All but the states may be on the CPU: a GPU is then not waited for.
    """

    states: Tensor
    video: Tensor
    expression: Tensor
    frame: Tensor
    objects: Tensor

    @staticmethod
    def of(states: Tensor, batch: BatchIds, splits: Sequence[int] | None = None) -> "SegTokens":
        """Return the states float [E, Q, C] of a batch; with `splits`, only those of expressions of these."""
        queries = states.shape[1]
        rows = torch.arange(len(states))
        if splits is not None:
            rows = rows[torch.isin(batch.split.cpu(), torch.tensor(list(splits), dtype=torch.long))]
        ids = rows.to(batch.video_key.device)
        return SegTokens(
            states[rows.to(states.device, non_blocking=True)].flatten(0, 1),
            batch.video_key[ids].repeat_interleave(queries),
            batch.expression[ids].repeat_interleave(queries),
            batch.query_numbers[batch.video_of.to(ids.device)[ids]].flatten(),
            batch.objects[ids].repeat_interleave(queries, dim=0),
        )

    def partners(self, frames: Frames) -> Tensor:
        """bool [N, N]: another expression of the same video and object set, in the same frame or in any."""
        found = self._same_video() & (self.objects[:, None] == self.objects[None]).all(-1)
        found &= self.expression[:, None] != self.expression[None]
        return found & (self.frame[:, None] == self.frame[None]) if frames == "same" else found

    def rivals(self) -> Tensor:
        """bool [N, N]: of another video, or of an object set that does not overlap."""
        sets = self.objects.float()
        # An expression without a target overlaps nothing, not even itself.
        itself = self.expression[:, None] == self.expression[None]
        return ~(self._same_video() & ((sets @ sets.T > 0) | itself))

    def _same_video(self) -> Tensor:
        return self.video[:, None] == self.video[None]


@dataclass(frozen=True)
class Contrasted:
    """`loss`: scalar; `anchors`: how many of the states were compared, of `states` in all."""

    loss: Tensor
    anchors: Tensor
    states: int


def object_contrastive_loss(
    tokens: SegTokens, temperature: float = 0.07, frames: Frames = "same", own: slice = slice(None)
) -> Contrasted:
    """InfoNCE with several positives (SupCon, Khosla et al. 2020, eq. 2), meaned over states that have a positive.

    A state's positives are `partners`, its negatives `rivals`, in whichever frame; what is neither (its own expression
    in other frames, sets that overlap, with "same" its partners in other frames) does not count. States without a
    positive add nothing. `own` are the states whose part of the mean is computed: parts of one pool sum up to its loss.
    The loss is 0, attached to the graph, where nothing has a positive.
    Cost for N states of C numbers, n of them own: 4nNC FLOP forward, twice that backward, and nN numbers kept.
    """
    device = tokens.states.device
    positive = tokens.partners(frames)
    anchors = positive.any(1)
    # Rows without a positive stay, compared with everything and masked: their number would have to be waited for.
    considered = (positive | tokens.rivals() | ~anchors[:, None])[own].to(device, non_blocking=True)
    positive = positive[own].to(device, non_blocking=True)
    count = anchors.sum().to(device, non_blocking=True)
    unit = F.normalize(tokens.states.float(), dim=-1)
    similarity = unit[own] @ unit.T / temperature
    log_sum = torch.logsumexp(similarity.masked_fill(~considered, float("-inf")), dim=-1, keepdim=True)
    apart = (log_sum - similarity).masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)
    # In the graph whatever it holds: with several ranks, each must take its part in the backward pass.
    attached = tokens.states.float().sum() * 0.0
    return Contrasted(apart.sum() / count.clamp(min=1) + attached, count, len(anchors))


#: Integers kept with each state: video, expression, frame, object set.
_VIDEO, _EXPRESSION, _FRAME, _OBJECTS = range(4)
#: Banks of older checkpoints hold hashes of names under "bank.numbers".
_NUMBERS = "bank.ids"
_STATES = "bank.states"


class TokenBank:
    """The reference's loss. Holds the last `size` [SEG] states, float32 [B, C], and on the CPU int64 [B, 4], their ids.

    Source: the reference's utils/contrastive_loss.py and utils/seg_token_bank.py. The bank holds the last 512 states,
    those of the micro-batch at hand among them, without gradient; each rank has its own. What the reference keeps under
    names is kept here under numbers, so that the bank is a few tensors, which a checkpoint holds.
    """

    def __init__(self, size: int = 512, negatives: int = 128, temperature: float = 0.07):
        self.size, self.negatives, self.temperature = size, negatives, temperature
        self._states: Tensor | None = None
        self._numbers: Tensor | None = None

    def loss(self, tokens: SegTokens, random: torch.Generator) -> Contrasted:
        """Take the states in, then compare each with one positive and `negatives` negatives of the bank.

        A positive is a state of another expression with the same object set in the same video and frame. A negative is
        every other state but those of the expression itself: the reference takes states of the same object in other
        frames, and of sets that overlap, for negatives. One positive and, with repetition, the negatives are drawn by
        `random` (a generator on the CPU); states without a positive, or with fewer negatives in the bank, add nothing,
        and a single one left adds nothing either. The loss is the mean over the others, 0 where there are none.
        """
        device = tokens.states.device
        kinds = tokens.video, tokens.expression, tokens.frame, _set_numbers(tokens.objects)
        numbers = torch.stack([each.cpu() for each in kinds], dim=1)
        self._take(tokens.states.detach().float(), numbers)
        assert self._states is not None and self._numbers is not None
        held = self._numbers
        same_video = numbers[:, None, _VIDEO] == held[None, :, _VIDEO]
        itself = same_video & (numbers[:, None, _EXPRESSION] == held[None, :, _EXPRESSION])
        same_frame = numbers[:, None, _FRAME] == held[None, :, _FRAME]
        same_set = numbers[:, None, _OBJECTS] == held[None, :, _OBJECTS]
        positive = same_video & ~itself & same_frame & same_set
        negative = ~positive & ~itself
        anchors = positive.any(1) & (negative.sum(1) >= self.negatives)
        attached = tokens.states.float().sum() * 0.0
        count = int(anchors.sum())
        if count < 2:
            return Contrasted(attached, torch.zeros((), dtype=torch.long, device=device), len(anchors))
        drawn = torch.cat(
            [_draw(positive[anchors], 1, random), _draw(negative[anchors], self.negatives, random)], dim=1
        )
        rows = anchors.nonzero().flatten().to(device, non_blocking=True)
        states = tokens.states.float()[rows].unsqueeze(1)
        others = self._states[drawn.to(device, non_blocking=True)]
        similarity = F.cosine_similarity(states, others, dim=-1) / self.temperature
        loss = (torch.logsumexp(similarity, dim=1) - similarity[:, 0]).mean()
        return Contrasted(loss + attached, anchors.sum().to(device, non_blocking=True), len(anchors))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; empty as long as nothing was taken in."""
        if self._states is None or self._numbers is None:
            return {}
        return {_STATES: self._states.cpu(), _NUMBERS: self._numbers}

    def restore(self, state: dict[str, Tensor], device: torch.device) -> bool:
        """Go on with what `state` gave. False: the ids of an older version mean nothing here, the bank begins empty."""
        known = _NUMBERS in state
        self._states = state[_STATES].to(device) if known else None
        self._numbers = state[_NUMBERS].cpu() if known else None
        return known

    def _take(self, states: Tensor, numbers: Tensor) -> None:
        if self._states is not None and self._numbers is not None:
            states, numbers = torch.cat([self._states, states]), torch.cat([self._numbers, numbers])
        self._states, self._numbers = states[-self.size :], numbers[-self.size :]


def _draw(allowed: Tensor, count: int, random: torch.Generator) -> Tensor:
    """int64 [n, count]: for each row of `allowed` (bool [n, B]), places where it is true, with repetition."""
    return torch.multinomial(allowed.float(), count, replacement=True, generator=random)


def _set_numbers(objects: Tensor) -> Tensor:
    """int64 [N]: equal for equal rows of `objects` (bool [N, O]), whatever O; other rows meet once in 2^61."""
    # Two polynomials of 31 bits each, packed: one of 61 bits would need products of 128.
    found = torch.zeros(len(objects), dtype=torch.long, device=objects.device)
    for base, prime in ((1_000_003, 2**31 - 1), (69_069, 2**31 - 19)):
        number, power = torch.zeros_like(found), 1
        for column in objects.T:
            power = power * base % prime
            number = (number + column.long() * power) % prime
        found = (found << 31) | number
    return found
