"""VideoLISA's frames of a video: sparse ones over all of it, and dense ones, which are positions among the sparse.

Source: showlab/VideoLISA, utils/mevis_dataset.py (training) and evaluation/*/inference_*.py (inference). All functions
are pure: draws in, indices out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: How far a neighbour is from the anchor at most, in frames.
NEIGHBOUR = 3


def sparse_frames(frames: int, count: int) -> tuple[int, ...]:
    """Return the `count` frames that are shown at inference, ascending, of a video of `frames`.

    A longer video gives the middle of each of `count` parts. A shorter one repeats every frame as often as it fits, and
    the remainder falls on the middles of as many parts.
    """
    if frames > count:
        return _middles(frames, frames, count)
    repeats, remainder = divmod(count, frames)
    return tuple(sorted([*range(frames)] * repeats + [*_middles(frames, frames, remainder)]))


def dense_positions(sparse: int, count: int) -> tuple[int, ...]:
    """Return the `count` dense positions among `sparse` frames at inference: 3, 10, 18, 26 for 4 of 32."""
    return _middles(sparse - 1, sparse, count)


def dense_frames(sparse: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the frames at the dense positions of inference."""
    return tuple(sparse[position] for position in dense_positions(len(sparse), count))


def _middles(length: int, limit: int, parts: int) -> tuple[int, ...]:
    """Middle of each of `parts` equal parts of range(length), rounded down.

    An empty part, which the reference's rule would put before its own beginning, keeps that beginning, below `limit`.
    """
    bounds = np.linspace(0, length, parts + 1).astype(int).tolist()
    return tuple(
        min(max((low + high - 1) // 2, low), limit - 1) for low, high in zip(bounds[:-1], bounds[1:], strict=True)
    )


@dataclass(frozen=True)
class GlobalDraw:
    """Which numbers are drawn without repeats next to the anchor and its neighbours.

    `picks` numbers of range(`choices`): places in `frames`, which are the frames outside the neighbours or all of them;
    `repeats` is how often each frame of the video is added as well.
    """

    frames: tuple[int, ...]
    picks: int
    repeats: int

    @property
    def choices(self) -> int:
        return len(self.frames)


def neighbours(frames: int, anchor: int, before: int, after: int) -> tuple[int, int]:
    """Frames `before` and `after` steps from the anchor, kept within the video."""
    return max(0, anchor - before), min(frames - 1, anchor + after)


def global_draw(frames: int, anchor: int, before: int, after: int, count: int) -> GlobalDraw:
    """What is left to draw where `count` frames are due in all, the anchor and two neighbours among them."""
    first, last = neighbours(frames, anchor, before, after)
    every, left = tuple(range(frames)), count - 3
    outside = every[:first] + every[last:]
    if len(outside) > left:
        return GlobalDraw(outside, left, 0)
    if frames >= left:
        return GlobalDraw(every, left, 0)
    return GlobalDraw(every, left % frames, left // frames)


def training_frames(
    frames: int, anchor: int, before: int, after: int, count: int, picks: Sequence[int]
) -> tuple[int, ...]:
    """Return the `count` sparse frames of training, ascending; `picks` are those that `global_draw` asks for."""
    drawn = global_draw(frames, anchor, before, after, count)
    chosen = [drawn.frames[pick] for pick in picks]
    return tuple(
        sorted((anchor, *neighbours(frames, anchor, before, after), *chosen, *[*range(frames)] * drawn.repeats))
    )


def draw_training_frames(
    frames: int, sparse: int, dense: int, random: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw (sparse frames, dense frames) of a video for one sample, both ascending.

    The anchor is one of range(0, frames, sparse): the reference has an item for each. Dense frames are drawn among the
    sparse ones by position. One or two sparse frames have no neighbours.
    """
    anchor = int(random.integers(-(-frames // sparse))) * sparse
    if sparse < 3:
        chosen = tuple(sorted([anchor, *random.integers(frames, size=sparse - 1).tolist()]))
    else:
        before, after = random.integers(1, NEIGHBOUR + 1, 2).tolist()
        due = global_draw(frames, anchor, before, after, sparse)
        picks = random.choice(due.choices, due.picks, replace=False).tolist()
        chosen = training_frames(frames, anchor, before, after, sparse, picks)
    positions = sorted(random.choice(sparse, dense, replace=False).tolist())
    return chosen, tuple(chosen[position] for position in positions)
