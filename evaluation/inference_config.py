"""What goes into a pass over a split besides the model, and what comes out besides the masks: no heavy imports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InferenceConfig:
    """How a video is gone through."""

    #: Every how many frames a memory is kept (the reference: 3 in inference, 1 in training).
    memory_stride: int = 3
    #: End the prompt with a blank as the reference does (a token that training never shows; docs/fidelity.md).
    trailing_blank: bool = True
    #: Expressions of one video that go through the model together.
    expressions_together: int = 16


@dataclass(frozen=True)
class Predicted:
    """What a pass over a split did: expressions predicted, found on disk, and frames that got no [SEG]."""

    expressions: int
    found: int
    frames: int
    frames_without_seg: int
