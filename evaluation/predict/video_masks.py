"""A model, a video's frames and expressions in; masks out, frame by frame."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glus.evaluation.predict.asking import ASKING, Asked
from glus.evaluation.predict.background import ReadAhead
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import Loaded

__all__ = ["Asked", "ShownFrame", "masks_of_video"]


@dataclass(frozen=True)
class ShownFrame:
    """Masks of frame `index` for some expressions (by their place): bool [n, H, W]. Where the model did not answer
    with [SEG], `answered` is False and the mask is empty."""

    index: int
    expressions: list[int]
    masks: NDArray[np.bool_]
    answered: list[bool]


def masks_of_video(
    loaded: Loaded,
    config: InferenceConfig,
    frame: Callable[[int], NDArray[np.uint8]],
    frames: int,
    asked: Asked,
    device: torch.device,
) -> Generator[ShownFrame, None, None]:
    """Each expression's mask of each frame, once, in the order in which the video is gone through.

    frame: index -> uint8 [H, W, 3] RGB, called in a thread, a few frames ahead (background.py); device: the model's.
    What is held does not grow with the video. A GPU is waited for where a frame's masks and answers are copied from it,
    and nowhere else: prompts are laid out on the CPU.
    How it is asked follows from its method (asking.py).
    Raises EvaluationError for an empty expression, ModelError where one does not fit the model's positions or a key
    frame is not in the video.
    """

    def read(index: int) -> Tensor:
        pixels = torch.from_numpy(frame(index)).permute(2, 0, 1)
        # From pinned memory it is copied while the GPU computes.
        return pixels.pin_memory() if device.type == "cuda" else pixels

    with ReadAhead(read, frames) as ahead:

        def picture(index: int) -> Tensor:
            return ahead(index).to(device, non_blocking=True)

        for seen in ASKING[loaded.model.config.method].masks(loaded, config, picture, frames, asked):
            masks = ((seen.logits > 0) & seen.answered[:, None, None]).cpu().numpy()
            yield ShownFrame(seen.index, seen.expressions.tolist(), masks, seen.answered.tolist())
