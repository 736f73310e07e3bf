"""Frames that a caller holds in memory as a Clip: a list of arrays or pictures, or one array [T, H, W, 3]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glus.common.errors import DataError
from glus.evaluation.segment.clip import Clip

#: A list of frames (NumPy, torch or PIL, RGB), or all of them as uint8 [T, H, W, 3].
GivenFrames = Sequence[NDArray[np.uint8] | torch.Tensor | Image.Image] | NDArray[np.uint8] | torch.Tensor


def clip_of_frames(frames: GivenFrames) -> Clip:
    """A Clip named "video" of frames in memory, numbered 00000, 00001, ...; a frame is converted when it is read.

    Pictures of PIL are read as RGB. Raises DataError for no frames, another shape or type, and frames of several sizes.
    """
    if isinstance(frames, (np.ndarray, torch.Tensor)) and frames.ndim != 4:
        raise DataError(
            f"the video is an array of shape {list(frames.shape)}: give uint8 [frames, height, width, 3], RGB"
        )
    if not len(frames):
        raise DataError("the video holds no frames: give one or more")
    size = _checked_size(frames[0], 0)
    for index in range(1, len(frames)):
        if (other := _checked_size(frames[index], index)) != size:
            raise DataError(
                f"frame {index} is {other[0]}x{other[1]} (height x width), but the video's first frame is "
                f"{size[0]}x{size[1]}: give frames of one size",
                frame=str(index),
            )

    def read(index: int) -> NDArray[np.uint8]:
        return _pixels(frames[index])

    return Clip("video", tuple(f"{index:05d}" for index in range(len(frames))), size, read, len(frames))


def _checked_size(frame: Any, index: int) -> tuple[int, int]:
    """(height, width) of a frame, from what says it without reading pixels. Raises DataError."""
    if isinstance(frame, Image.Image):
        return frame.height, frame.width
    if not isinstance(frame, (np.ndarray, torch.Tensor)):
        raise DataError(
            f"frame {index} is of type {type(frame).__name__}: give a NumPy array, a torch tensor or a PIL picture",
            frame=str(index),
        )
    shape, kind = list(frame.shape), str(frame.dtype).removeprefix("torch.")
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or kind != "uint8":
        raise DataError(
            f"frame {index} is {kind} {shape}: give uint8 [height, width, 3], RGB from 0 to 255", frame=str(index)
        )
    return shape[0], shape[1]


def _pixels(frame: Any) -> NDArray[np.uint8]:
    """Uint8 [H, W, 3] on the CPU, writable as torch wants it."""
    if isinstance(frame, Image.Image):
        return np.array(frame.convert("RGB"), np.uint8)
    if isinstance(frame, torch.Tensor):
        return np.asarray(frame.detach().cpu().numpy(), np.uint8)
    return np.array(frame, np.uint8)
