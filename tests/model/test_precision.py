"""bf16 beside fp32: the same model on the same batch."""

import copy

import pytest
import torch
from torch import Tensor

from glus.model.glus import Glus, GlusOutput
from glus.model.precision import set_precision

from .tiny import HIGH, WIDE, tiny_batch, tiny_model

#: bf16 keeps 8 bits: 0.4 % a rounding. Over a whole forward pass states, logits and losses stay within these of fp32,
#: relative to their largest value.
STATES, LOGITS, LOSSES = 0.03, 0.08, 0.02


@torch.no_grad()
def run(model: Glus) -> tuple[GlusOutput, Tensor]:
    seen: list[Tensor] = []
    hook = model.segmenter.register_forward_hook(lambda *call: seen.append(call[-1]))
    out = model(tiny_batch(WIDE, HIGH))
    hook.remove()
    return out, seen[0]


def apart(half: Tensor, whole: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((half.float() - whole).abs().max() / whole.abs().max())


def test_a_forward_pass_in_bf16_stays_near_that_in_fp32():
    model = tiny_model().eval()
    # Usual spread: tiny_model draws Llama so wide that any rounding is blown up.
    for parameter in model.language.llama.parameters():
        if parameter.dim() > 1:
            parameter.data *= 0.3
    half = copy.deepcopy(model)
    set_precision(half, "bf16")
    (whole, logits), (rounded, half_logits) = run(model), run(half)
    assert rounded.seg_states.dtype == half_logits.dtype == torch.bfloat16
    assert 0 < apart(rounded.seg_states, whole.seg_states) < STATES
    assert 0 < apart(half_logits, logits) < LOGITS
    for name, loss in whole.losses.items():
        assert rounded.losses[name].dtype == torch.float32
        assert rounded.losses[name].item() == pytest.approx(loss.item(), rel=LOSSES), name


def test_only_parameters_are_cast_so_that_positions_stay_exact():
    model, half = tiny_model(), tiny_model()
    set_precision(half, "bf16")
    assert {each.dtype for each in half.parameters()} == {torch.bfloat16}
    buffers = dict(half.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffers[name], buffer) and buffers[name].dtype == buffer.dtype, name
    assert any(name.endswith("positional_encoding_gaussian_matrix") for name in buffers)
    assert any(name.endswith("rotary_emb.inv_freq") for name in buffers)
    whole, kept = (each.segmenter.sam2.sam_prompt_encoder.get_dense_pe() for each in (model, half))
    assert torch.equal(whole, kept)
    # What casting buffers too would do to the encoding, which lies between -1 and 1.
    for buffer in half.buffers():
        buffer.copy_(buffer.bfloat16())
    assert (half.segmenter.sam2.sam_prompt_encoder.get_dense_pe() - whole).abs().max() > 0.01
