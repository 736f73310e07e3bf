"""What a batch and a prediction ask of the words around an expression, whichever method they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from glus.data_pipeline.batches.tokenizer import IMAGE_PLACEHOLDER

#: A frame in the text of GLUS's conversations, and their system text (LLaVA v1).
FRAME = f"<im_start>{IMAGE_PLACEHOLDER}<im_end>"
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
#: How an expression is worded at inference, where the style knows several: "expression" is a referring expression,
#: "scene" and "sentence" are ReasonVOS's phrases and sentences (is_sent), "chat" is the user's own request; of image
#: benchmarks, "image" is refCOCO's, "image_phrase" and "image_sentence" are ReasonSeg's (is_sentence).
WORDINGS = ("expression", "scene", "sentence", "chat", "image", "image_phrase", "image_sentence")


@dataclass(frozen=True)
class Said:
    """A training conversation. `asked` is its part before the answer, all of which is learnt; None: [SEG] alone."""

    text: str
    asked: str | None


def clean_expression(text: str) -> str:
    """The expression as the reference asks it: lower case, without blanks at its ends and a full stop after it."""
    cleaned = text.strip().lower()
    return cleaned.removesuffix(".")


class Style(Protocol):
    """The words around an expression: what a batch asks of them."""

    @property
    def questions(self) -> tuple[str, ...]: ...

    @property
    def answers(self) -> tuple[str, ...]: ...

    @property
    def max_tokens(self) -> int:
        """Ids of a prompt at most, an <image> counted as one; the reference cuts off the others."""
        ...

    @property
    def tokens(self) -> tuple[str, ...]:
        """Special tokens that the tokenizer must have."""
        ...

    def rounds(self, query_frames: int) -> int:
        """Questions with their answers, each with a [SEG]."""
        ...

    def images(self, context_frames: int, query_frames: int) -> int:
        """<image> in a prompt."""
        ...

    def say(self, text: str, kind: str, context_frames: int, chosen: Sequence[tuple[int, int]]) -> Said:
        """The training conversation of an expression, of its `kind`, with one (question, answer) pair a round."""
        ...

    def ask(self, text: str, wording: str, context_frames: int, query_frames: int, trailing_blank: bool) -> str:
        """The prompt of inference for the last of `query_frames` query frames; `wording` is one of WORDINGS."""
        ...
