"""Activations computed again in the backward pass instead of being kept (Chen et al. 2016)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from glus.model.language.language_families import DECODER_LAYERS
from glus.model.methods import AnyModel


def recompute_activations(model: AnyModel) -> None:
    """Keep no activations inside decoder layers, nor inside the image encoder's blocks where it is trained.

    In place. Gradients stay as they are, dropout included: its random state is restored for the second pass. Hooks of a
    layer (ZeRO-3 gathers by them) stay around both passes. Without gradients nothing changes.
    """
    layers: list[nn.Module] = [each for each in model.modules() if isinstance(each, DECODER_LAYERS)]
    segmenter: Any = getattr(model, "segmenter", None)  # the selector has none
    if segmenter is not None and model.config.segmenter.train_image_encoder:
        layers += segmenter.encoder_blocks()
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **keys: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **keys)
    return checkpoint(forward, *args, use_reentrant=False, **keys)
