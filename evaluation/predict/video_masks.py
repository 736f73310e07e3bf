"""A model, a video's frames and expressions in; masks out, frame by frame."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glus.common.errors import EvaluationError
from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import clean_expression, templates_named
from glus.data_pipeline.batches.prompt_style import Style
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import Loaded


@dataclass(frozen=True)
class ShownFrame:
    """Masks of frame `index` for some expressions (by their place): bool [n, H, W]. Where the model did not answer
    with [SEG], `answered` is False and the mask is empty."""

    index: int
    expressions: list[int]
    masks: NDArray[np.bool_]
    answered: list[bool]


@dataclass(frozen=True)
class Asked:
    """Expressions of one video. `names` says in messages which expression a text is; `key_frames` are indices."""

    texts: Sequence[str]
    names: Sequence[str]
    key_frames: Sequence[int]


def masks_of_video(
    loaded: Loaded,
    config: InferenceConfig,
    frame: Callable[[int], NDArray[np.uint8]],
    frames: int,
    asked: Asked,
    device: torch.device,
) -> Iterator[ShownFrame]:
    """Each expression's mask of each frame, once, in the order in which the video is gone through.

    frame: index -> uint8 [H, W, 3] RGB, read when it is needed; device: the model's. What is held does not grow with
    the video.
    Raises EvaluationError for an empty expression, ModelError where one does not fit the model's positions or a key
    frame is not in the video.
    """

    def picture(index: int) -> Tensor:
        return torch.from_numpy(frame(index)).permute(2, 0, 1).to(device)

    sampling = loaded.sampling
    prompts = VideoPrompts(
        loaded.tokenizer,
        asked.texts,
        asked.names,
        sampling.context_frames,
        templates_named(sampling.prompts),
        config.trailing_blank,
        device,
    )
    followed = loaded.model.segment_video(
        picture,
        frames,
        middle_context(frames, sampling.context_frames),
        prompts,
        window=sampling.query_frames,
        memory_stride=config.memory_stride,
        key_frame=asked.key_frames,
        expressions_together=config.expressions_together,
    )
    for seen in followed:
        masks = ((seen.logits > 0) & seen.answered[:, None, None]).cpu().numpy()
        yield ShownFrame(seen.index, seen.expressions.tolist(), masks, seen.answered.tolist())


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
        templates: Style,
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
            self._tokenizer.encode(
                self._templates.ask(text, "expression", self._context_frames, queries, self._trailing_blank)
            )
            for text in self._texts
        ]
        ids, attention = padded_ids(rows, self._tokenizer.pad_id)
        return ids.to(self._device), attention.to(self._device)
