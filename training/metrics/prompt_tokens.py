"""What a video gives to CLIP and to the language model, by method: frames, images of a prompt, tokens."""

from collections.abc import Callable
from dataclasses import dataclass

from glus.model.model_config import Method, ModelConfig


@dataclass(frozen=True)
class Shown:
    """Frames of a video: context and query, or sparse and dense, or references and the target."""

    context: int
    queries: int


@dataclass(frozen=True)
class Reading:
    """What one method reads."""

    text: int
    """Tokens of a prompt's text that `glus plan` assumes, without its <image>s."""
    shared_text: int
    """Those of them that all prompts of a video begin with."""
    images: Callable[[Shown], int]
    """<image>s of a prompt."""
    shared_images: Callable[[Shown], int]
    """Those of them in what all prompts of a video begin with."""
    image_tokens: Callable[[ModelConfig, Shown], int]
    """Tokens of an <image>."""
    frames: Callable[[Shown], int]
    """Frames of a video that CLIP encodes."""

    def tokens(self, config: ModelConfig, shown: Shown, videos: int, expressions: int, text: int | None = None) -> int:
        """Tokens that the language model reads for `expressions` prompts about `videos` videos.

        `text` tokens of each are text; left out, as many as `glus plan` assumes.
        """
        text, each = self.text if text is None else text, self.image_tokens(config, shown)
        begin = min(self.shared_text, text) + self.shared_images(shown) * each
        prompt = text + self.images(shown) * each
        return (videos if config.shares_beginnings else expressions) * begin + expressions * (prompt - begin)


def _every_frame(shown: Shown) -> int:
    return shown.context + shown.queries


def _one_frame(config: ModelConfig, shown: Shown) -> int:
    return config.vision.tokens_per_frame


#: The questions begin after the first query frame. Counted with LLaMA's tokenizer.
_GLUS = Reading(150, 55, _every_frame, lambda shown: shown.context + 1, _one_frame, _every_frame)
READINGS: dict[Method, Reading] = {
    "glus": _GLUS,
    "pretraining": _GLUS,
    # One <image> stands for the video: a token a sparse frame and all patches of the dense ones, which are among them.
    "videolisa": Reading(
        60,
        0,
        lambda _: 1,
        lambda _: 1,
        lambda config, shown: shown.context + shown.queries * config.vision.tokens_per_frame,
        lambda shown: shown.context,
    ),
    # The target is one of the references, and in every prompt twice. Each reference has its number, marks and a comma.
    "selector": Reading(200, 110, _every_frame, _every_frame, _one_frame, lambda shown: shown.context),
}
