"""Scores of every frame of a video for all its expressions: what prompts have in common is computed once.

Source: GLUS's kfs/, inference, which reads a prompt of up to 11 references and a target from its first token for each
frame of each expression.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glus.model.inference.video_prompts import VideoPrompts
from glus.model.language.language import Language
from glus.model.language.prefix import Prefix
from glus.model.language.prompt_rows import IMAGE_TOKEN_ID, common_length
from glus.model.selector.selector import Selector


@torch.no_grad()
def score_frames(
    model: Selector,
    frame: Callable[[int], Tensor],
    classes: Sequence[Sequence[int]],
    prompts: Callable[[int], tuple[Tensor, Tensor]],
    together: int,
) -> Tensor:
    """Scores float32 [E, T], on the CPU, of T frames for E expressions.

    frame: index -> uint8 [3, H, W] on the model's device. classes: the frames in groups, each frame in one; a group's
    frames are the references of each of them. prompts: number of references -> ids int64 [E, L] and attention bool
    [E, L] up to [SCORE], the target after the references. `together` expressions are read at a time.

    A frame is read and encoded once. The tokens of a group's references are computed once, the target's once for all
    expressions, then only the rest of each prompt. Memory holds one group, whatever the length of the video.
    Raises ModelError for a prompt with other frames than those, or longer than the model's positions.
    """
    language, found = model.language, {}
    asked = {count: _Asked.of(language, prompts, count) for count in sorted({len(each) for each in classes})}
    for group in classes:
        asks = asked[len(group)]
        tokens = torch.cat([language.frame_tokens([frame(index).unsqueeze(0)]) for index in group])
        prefix, left = _longer(language, asks.references, None, tokens)
        for target, own in zip(group, tokens, strict=True):
            found[target] = _scores(model, asks, torch.cat([left, own.unsqueeze(0)]), prefix, together)
    return torch.stack([found[index] for index in range(len(found))], dim=1).cpu()


@dataclass(frozen=True)
class _Asked:
    """The prompts of E expressions in three parts: ids int64 of what all share before the target, and from there on.

    ids: int64 [E, L] and attention: bool [E, L] of the rest, at least one token each: the state is read there.
    """

    references: Tensor
    target: Tensor
    ids: Tensor
    attention: Tensor

    @classmethod
    def of(cls, language: Language, prompts: Callable[[int], tuple[Tensor, Tensor]], references: int) -> "_Asked":
        sizes = language.config
        checked = VideoPrompts.of(
            lambda _: prompts(references),
            1,
            references,
            sizes.vision.tokens_per_frame,
            sizes.language.max_positions,
        )
        (ids, attention), begun = checked.by_frames[0], checked.beginning()
        ids, attention = ids[:, len(begun) :], attention[:, len(begun) :]
        common = min(common_length(ids, attention), int(attention.sum(1).min()) - 1) if len(ids) > 1 else 0
        return cls(begun, ids[0, :common], ids[:, common:], attention[:, common:])


def _longer(language: Language, ids: Tensor, prefix: Prefix | None, images: Tensor) -> tuple[Prefix | None, Tensor]:
    """The prefix after `ids`, which hold some of `images`; and the other images."""
    if not len(ids):
        return prefix, images
    shown = int((ids == IMAGE_TOKEN_ID).sum())
    return language.prefix(ids, images[:shown], prefix), images[shown:]


def _scores(model: Selector, asks: _Asked, images: Tensor, prefix: Prefix | None, together: int) -> Tensor:
    """Scores float32 [E] of one target; images: float [F, P, hidden], the frames that come after `prefix`."""
    prefix, images = _longer(model.language, asks.target, prefix, images)
    scores = []
    for ids, attention in zip(asks.ids.split(together), asks.attention.split(together), strict=True):
        length = int(attention.sum(1).max())
        given = ids[:, :length], attention[:, :length], images.unsqueeze(0)
        state = model.language.read(*given, prefix=prefix).last()
        scores.append(model.scores(state).float())
    return torch.cat(scores)
