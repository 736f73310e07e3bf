"""The prompts of a video's expressions, as the model asks for them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from glus.common.errors import EvaluationError
from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import Templates, clean_expression, inference_prompt
from glus.data_pipeline.batches.tokenizer import Tokenizer


class VideoPrompts:
    """Called with the number of query frames: ids int64 [E, L] and attention bool [E, L] on `device`.

    `names` says in messages which expression a text is. Raises EvaluationError for a text with nothing in it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        names: Sequence[str],
        context_frames: int,
        templates: Templates,
        trailing_blank: bool,
        device: torch.device,
    ):
        for text, name in zip(texts, names, strict=True):
            if not clean_expression(text).strip():
                raise EvaluationError(f"{name} is empty ({text!r}): say in words what is to be segmented")
        self._tokenizer, self._texts, self._context_frames = tokenizer, texts, context_frames
        self._templates, self._trailing_blank, self._device = templates, trailing_blank, device

    def __call__(self, queries: int) -> tuple[Tensor, Tensor]:
        """The prompts for the last of `queries` query frames."""
        rows = [
            self._tokenizer.encode_with_images(
                inference_prompt(text, self._context_frames, queries, self._trailing_blank, self._templates)
            )
            for text in self._texts
        ]
        ids, attention = padded_ids(rows, self._tokenizer.pad_id)
        return ids.to(self._device), attention.to(self._device)
