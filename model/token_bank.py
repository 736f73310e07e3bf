"""The reference's object-contrastive loss: each [SEG] state against a bank of past ones.

Source: the reference's utils/contrastive_loss.py and utils/seg_token_bank.py. The bank holds the last 512 states, those
of the micro-batch at hand among them, without gradient; each rank has its own. What the reference keeps under names is
kept here under numbers, so that the bank is a few tensors, which a checkpoint holds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from glus.model.contrastive import Contrasted, SegTokens

#: Integers kept with each state: video, expression, frame, object set.
_VIDEO, _EXPRESSION, _FRAME, _OBJECTS = range(4)
#: Banks of older checkpoints hold hashes of names under "bank.numbers".
_NUMBERS = "bank.ids"
_STATES = "bank.states"


class TokenBank:
    """The last `size` [SEG] states: float32 [B, C], and int64 [B, 4] that say what they stand for."""

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
        numbers = torch.stack([tokens.video, tokens.expression, tokens.frame, _set_numbers(tokens.objects)], dim=1)
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
            return Contrasted(attached, anchors.sum() * 0, len(anchors))
        drawn = torch.cat(
            [_draw(positive[anchors], 1, random), _draw(negative[anchors], self.negatives, random)], dim=1
        )
        states = tokens.states.float()[anchors].unsqueeze(1)
        similarity = F.cosine_similarity(states, self._states[drawn], dim=-1) / self.temperature
        loss = (torch.logsumexp(similarity, dim=1) - similarity[:, 0]).mean()
        return Contrasted(loss + attached, anchors.sum(), len(anchors))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; empty as long as nothing was taken in."""
        if self._states is None or self._numbers is None:
            return {}
        return {_STATES: self._states.cpu(), _NUMBERS: self._numbers.cpu()}

    def restore(self, state: dict[str, Tensor], device: torch.device) -> bool:
        """Go on with what `state` gave. False: the ids of an older version mean nothing here, the bank begins empty."""
        known = _NUMBERS in state
        self._states = state[_STATES].to(device) if known else None
        self._numbers = state[_NUMBERS].to(device) if known else None
        return known

    def _take(self, states: Tensor, numbers: Tensor) -> None:
        if self._states is not None and self._numbers is not None:
            states, numbers = torch.cat([self._states, states]), torch.cat([self._numbers, numbers])
        self._states, self._numbers = states[-self.size :], numbers[-self.size :]


def _draw(allowed: Tensor, count: int, random: torch.Generator) -> Tensor:
    """int64 [n, count]: for each row of `allowed` (bool [n, B]), places where it is true, with repetition."""
    return torch.multinomial(allowed.float().cpu(), count, replacement=True, generator=random).to(allowed.device)


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
