"""What a micro-batch gives to CLIP and to the language model, by method: frames, and tokens of prompts."""

from collections.abc import Callable
from dataclasses import dataclass

from glus.model.model_config import Method, ModelConfig


@dataclass(frozen=True)
class Shown:
    """Videos, frames of each (context and query, or sparse and dense), prompts, and tokens of their text.

    `text` is of all prompts together, an <image> counted as one token.
    """

    videos: int
    context: int
    queries: int
    expressions: int
    text: int


@dataclass(frozen=True)
class Reading:
    """What one method reads."""

    text: int
    """Tokens of a prompt's text that `glus plan` assumes, without its <image>s."""
    images: Callable[[Shown], int]
    """<image>s of a prompt."""
    frames: Callable[[Shown], int]
    """Frames of a video that CLIP encodes."""
    tokens: Callable[[ModelConfig, Shown], int]
    """Tokens that the language model reads for all prompts."""


def _every_frame(shown: Shown) -> int:
    return shown.context + shown.queries


def _glus_tokens(config: ModelConfig, shown: Shown) -> int:
    """Every prompt holds all frames, each with an <image> of its own."""
    return shown.text + shown.expressions * _every_frame(shown) * (config.vision.tokens_per_frame - 1)


def _videolisa_tokens(config: ModelConfig, shown: Shown) -> int:
    """One a sparse frame and all patches of a dense one, for one <image>; prompts of a video share them, or do not."""
    video = shown.context + shown.queries * config.vision.tokens_per_frame
    rows = shown.videos if config.share_video_tokens else shown.expressions
    return shown.text - shown.expressions + rows * video


READINGS: dict[Method, Reading] = {
    "glus": Reading(150, _every_frame, _every_frame, _glus_tokens),
    "pretraining": Reading(150, _every_frame, _every_frame, _glus_tokens),
    # Dense frames are among the sparse ones.
    "videolisa": Reading(60, lambda _: 1, lambda shown: shown.context, _videolisa_tokens),
    # The target is one of the references, and in every prompt twice. Each reference has its number, marks and a comma.
    "selector": Reading(200, _every_frame, lambda shown: shown.context, _glus_tokens),
}
