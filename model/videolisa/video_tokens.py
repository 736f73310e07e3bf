"""Sparse and dense tokens of a video ("Sparse Dense Sampling"; prepare_inputs of VideoLISA's model/VideoLISA.py)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from glus.model.language import Language
from glus.model.preprocess import for_vision_tower


def frame_tokens(language: Language, frames: Sequence[Tensor]) -> list[Tensor]:
    """Tokens of the frames of V videos, all encoded together.

    frames: V x uint8 [F_v, 3, H_v, W_v]. Returns V x float [F_v, P, hidden].
    """
    vision = language.config.vision
    pixels = [for_vision_tower(each, vision.image_size, vision.mean, vision.std, language.dtype) for each in frames]
    return list(language.encode_frames(torch.cat(pixels)).split([len(each) for each in frames]))


def video_tokens(tokens: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
    """What stands for a video in a prompt: a mean of each sparse frame's tokens, then all tokens of the dense frames.

    tokens: float [F, P, hidden]; sparse: int64 [S] and dense: int64 [D], indices of frames.
    Returns float [S + D * P, hidden].
    """
    return torch.cat([tokens.mean(1)[sparse], tokens[dense].flatten(0, 1)])
