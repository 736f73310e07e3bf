"""Object-contrastive loss over [SEG] states that were read together.

The paper's loss pulls together [SEG] states of expressions for one object and pushes others apart. The reference does
so against a bank of past states (token_bank.py); here what is read together holds the partners, because the sample plan
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
    set, as columns of its video.
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
        rows = torch.arange(len(states), device=states.device)
        if splits is not None:
            wanted = torch.tensor(list(splits), dtype=torch.long, device=states.device)
            rows = rows[torch.isin(batch.split, wanted)]
        return SegTokens(
            states[rows].flatten(0, 1),
            batch.video_key[rows].repeat_interleave(queries),
            batch.expression[rows].repeat_interleave(queries),
            batch.query_numbers[batch.video_of.to(states.device, non_blocking=True)[rows]].flatten(),
            batch.objects[rows].repeat_interleave(queries, dim=0),
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
    positive = tokens.partners(frames)
    anchors = positive.any(1)
    considered = (positive | tokens.rivals())[own]
    unit = F.normalize(tokens.states.float(), dim=-1)
    similarity = unit[own] @ unit.T / temperature
    rows = anchors[own]
    similarity, considered, positive = similarity[rows], considered[rows], positive[own][rows]
    log_sum = torch.logsumexp(similarity.masked_fill(~considered, float("-inf")), dim=-1, keepdim=True)
    apart = (log_sum - similarity).masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1)
    # In the graph whatever it holds: with several ranks, each must take its part in the backward pass.
    attached = tokens.states.float().sum() * 0.0
    return Contrasted(apart.sum() / anchors.sum().clamp(min=1) + attached, anchors.sum(), len(anchors))
