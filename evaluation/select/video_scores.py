"""A selector, a video's frames and expressions in; the score of every frame for every expression out."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glus.common.errors import EvaluationError, ModelError
from glus.data_pipeline.batches.conversations import templates_named
from glus.evaluation.predict.asking import VideoPrompts
from glus.evaluation.predict.model_source import Loaded, ModelSource
from glus.evaluation.select.selection_rules import reference_classes

if TYPE_CHECKING:
    from glus.model.selector.selector import Selector


def check_selector(source: ModelSource, key: str) -> None:
    """Raise EvaluationError where the model is no key frame selector; `key` is the setting that names it."""
    if source.method != "selector":
        raise EvaluationError(
            f"{key}={source.folder}: this is a model of method {source.method}, not a key frame selector; name one "
            "(docs/key_frames.md says how to train it)"
        )


def scores_of_video(
    loaded: Loaded,
    frame: Callable[[int], NDArray[np.uint8]],
    frames: int,
    texts: Sequence[str],
    video: str,
    together: int,
    device: torch.device,
) -> NDArray[np.float32]:
    """Scores float32 [E, T] of T frames for E expressions, by the reference's rules (selection_rules.py).

    frame: index -> uint8 [H, W, 3] RGB, each read once; video: its name, for messages; together: how many
    expressions that are read at a time; device: the model's.
    Raises EvaluationError for an empty expression, and for one that does not fit the model's positions.
    """
    from glus.model.selector.score_frames import score_frames

    style = templates_named(loaded.sampling.prompts)
    loaded.tokenizer.check_has(style.tokens, loaded.sampling.prompts)

    names = [f"{video} expression {number} of {len(texts)}" for number in range(1, len(texts) + 1)]

    def picture(index: int) -> Tensor:
        return torch.from_numpy(frame(index)).permute(2, 0, 1).to(device)

    def prompts(references: int) -> tuple[Tensor, Tensor]:
        return VideoPrompts(loaded.tokenizer, texts, names, references, style, False)(1)

    model: Selector = cast(Any, loaded.model)
    try:
        return score_frames(model, picture, reference_classes(frames), prompts, together).numpy()
    except ModelError as error:
        raise EvaluationError(f"{video}: {error}") from error
