"""What scoring says of one expression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import VideoEntry

WITHOUT_TARGET = 2
"""ReVOS type_id of expressions that name nothing in the video."""


@dataclass(frozen=True)
class ExpressionScore:
    """One expression's metrics: means over all frames of the video, 0 to 100.

    J, F and JF (their mean) are None where the split hides the target. `missing` says that there was no prediction:
    such an expression has 0. A and R are ReVOS's and None elsewhere. The control metrics are None where the expression
    has no partner (scoring.py). `size` is the target's mean share of the frame, 0 to 1, over frames where it is seen
    (None where it never is), `rivals` the number of the video's other objects. `object_accuracy` and `lost_*`,
    which add up to 100 with J, say where J is lost; `switches`, 0 to 100, how often the mask goes to another object,
    None where the video has no rival (error_parts.py). `intersection` and `union` are pixels, of image benchmarks only
    (None elsewhere). `exchanged_with` names the expression
    whose target this prediction fits instead of its own, while that one's prediction fits this target: ids may have
    been exchanged.
    """

    dataset: str
    split: str
    video: str
    expression: str
    text: str
    kind: str
    type_id: int | None
    object_ids: tuple[str, ...]
    frames: int
    missing: bool
    J: float | None
    F: float | None
    JF: float | None
    control_expression: str | None = None
    control_J: float | None = None
    control_F: float | None = None
    control_JF: float | None = None
    A: float | None = None
    R: float | None = None
    size: float | None = None
    rivals: int | None = None
    frames_without_object: int | None = None
    object_accuracy: float | None = None
    switches: float | None = None
    lost_mask: float | None = None
    lost_object: float | None = None
    lost_both: float | None = None
    lost_missed: float | None = None
    lost_imagined: float | None = None
    intersection: int | None = None
    union: int | None = None
    exchanged_with: str | None = None

    @property
    def hidden(self) -> bool:
        """Whether the split hides the target, so that nothing was scored."""
        return self.JF is None

    @property
    def name(self) -> str:
        """DATASET/SPLIT/VIDEO/EXPRESSION, as the folder of its prediction."""
        return f"{self.dataset}/{self.split}/{self.video}/{self.expression}"


@dataclass(frozen=True, eq=False)
class FrameScores:
    """J and F of one expression in each frame of its video: float32 [T], 0 to 100; 0 where there was no prediction.

    lost: int8 [T], where the frame's J is lost, as places in ("", *error_parts.PARTS).
    """

    dataset: str
    split: str
    video: str
    expression: str
    frame_names: tuple[str, ...]
    J: NDArray[np.float32]
    F: NDArray[np.float32]
    lost: NDArray[np.int8]


@dataclass(frozen=True)
class VideoScores:
    """Scores of a video's expressions in their order, and their frames' where the target is known."""

    scores: list[ExpressionScore]
    frames: list[FrameScores]


def has_known_target(expression: Expression) -> bool:
    """Whether the split says what an expression means: its objects, or that it names nothing."""
    return bool(expression.object_ids) or expression.type_id == WITHOUT_TARGET


def unscored(entry: VideoEntry, expression: Expression) -> ExpressionScore:
    """The score before anything was looked at."""
    return ExpressionScore(
        dataset=entry.dataset,
        split=entry.split,
        video=entry.video,
        expression=expression.id,
        text=expression.text,
        kind=expression.kind,
        type_id=expression.type_id,
        object_ids=tuple(expression.object_ids),
        frames=len(entry.frame_names),
        missing=False,
        J=None,
        F=None,
        JF=None,
    )
