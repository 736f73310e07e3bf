"""Recomputing activations changes what is kept, and no gradient."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glus.model.glus import Glus
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.trainable import add_lora

from .tiny import WIDE, tiny_batch, tiny_config, tiny_model

pytestmark = pytest.mark.slow


def trained(recompute: bool, **segmenter: object) -> tuple[dict[str, Tensor], int]:
    """Gradients of one step with dropout in LoRA, and the bytes that its forward pass keeps for the backward pass."""
    config = tiny_config(**segmenter)
    model = tiny_model(config).train()
    torch.manual_seed(1)
    add_lora(model, config.lora)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    if recompute:
        recompute_activations(model)
    return _step(model)


def _step(model: Glus) -> tuple[dict[str, Tensor], int]:
    kept = {}
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tiny_batch(replace(WIDE, words=(30, 50, 40)))).loss
    loss.backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}, sum(kept.values())


def test_gradients_are_those_of_kept_activations_dropout_included():
    for train in (False, True):
        kept, much = trained(False, train_image_encoder=train)
        again, less = trained(True, train_image_encoder=train)
        assert kept.keys() == again.keys() and any("lora_A" in name for name in kept)
        assert any("image_encoder.trunk" in name for name in kept) == train
        for name in kept:
            torch.testing.assert_close(again[name], kept[name], atol=1e-6, rtol=1e-5, msg=name)
        assert less < (0.75 if train else 0.9) * much


def test_without_gradients_nothing_changes():
    plain, model = tiny_model().eval(), tiny_model().eval()
    recompute_activations(model)
    with torch.no_grad():
        assert torch.equal(model(tiny_batch(WIDE)).seg_states, plain(tiny_batch(WIDE)).seg_states)
