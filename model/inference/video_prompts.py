"""Prompts of one video: of each expression for each number of query frames, and their common beginning."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.model.language.prompt_rows import IMAGE_TOKEN_ID, common_length

#: Number of query frames in the window -> (ids int64 [E, L], attention bool [E, L]), padded at the end.
Prompts = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class VideoPrompts:
    """Prompts of E expressions, on the CPU.

    by_frames[n - 1]: ids int64 [E, L] and attention bool [E, L] for n query frames.
    """

    by_frames: tuple[tuple[Tensor, Tensor], ...]
    context: int

    @classmethod
    def of(cls, prompts: Prompts, window: int, context: int, frame_tokens: int, max_positions: int) -> "VideoPrompts":
        """The prompts for 1 to `window` query frames after `context` context frames.

        Raises ModelError, naming the expression by its place, where a prompt has other frames than those, or takes
        more than `max_positions` positions with `frame_tokens` for each frame.
        """
        asked = (prompts(queries) for queries in range(1, window + 1))
        given = tuple((ids.cpu(), attention.cpu()) for ids, attention in asked)
        for queries, (ids, attention) in enumerate(given, start=1):
            frames_of = (ids == IMAGE_TOKEN_ID).sum(1)
            positions = attention.sum(1) + frames_of * (frame_tokens - 1)
            for row, (frames, length) in enumerate(zip(frames_of.tolist(), positions.tolist(), strict=True)):
                where = f"expression {row + 1} of {len(ids)}"
                if frames != context + queries:
                    raise ModelError(
                        f"{where}: its prompt holds {frames} frames where {context + queries} are shown; an expression "
                        "may not contain <image>"
                    )
                if length > max_positions:
                    raise ModelError(
                        f"{where} is too long: with {queries} query frames its prompt takes {length} positions, the "
                        f"language model has {max_positions} (model.language.max_positions); shorten the expression"
                    )
        return cls(given, context)

    @property
    def expressions(self) -> int:
        """Number of expressions E."""
        return len(self.by_frames[0][0])

    def beginning(self) -> Tensor:
        """int64 [N]: the ids that all prompts share, up to the first query frame at most."""
        shortest = min(ids.shape[1] for ids, _ in self.by_frames)
        ids = torch.cat([ids[:, :shortest] for ids, _ in self.by_frames])
        attention = torch.cat([attention[:, :shortest] for _, attention in self.by_frames])
        shared = ids[0, : common_length(ids, attention)]
        return shared[(shared == IMAGE_TOKEN_ID).cumsum(0) <= self.context]
