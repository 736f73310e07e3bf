"""Sparse and dense tokens of a video ("Sparse Dense Sampling"; prepare_inputs of VideoLISA's model/VideoLISA.py)."""

import torch
from torch import Tensor


def video_tokens(tokens: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
    """What stands for a video in a prompt: a mean of each sparse frame's tokens, then all tokens of the dense frames.

    tokens: float [F, P, hidden]; sparse: int64 [S] and dense: int64 [D], indices of frames.
    Returns float [S + D * P, hidden].
    """
    return torch.cat([tokens.mean(1)[sparse], tokens[dense].flatten(0, 1)])
