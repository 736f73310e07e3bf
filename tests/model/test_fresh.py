"""How parts without released weights start."""

from dataclasses import replace

import pytest
import torch

from glus.model.glus import Glus
from glus.model.language.language import Language
from glus.model.memory import MemoryBank
from glus.model.sam2_parts import draw_image_encoder, look_past_memory
from glus.model.segmenter import Segmenter

from .tiny import SEG, VOCABULARY, tiny_config

pytestmark = pytest.mark.slow


def spread_model(spread: float) -> Glus:
    config = tiny_config()
    torch.manual_seed(0)
    return Glus(replace(config, language=replace(config.language, seg_spread=spread)), VOCABULARY, SEG)


@torch.no_grad()
def states(model: Glus, texts: int = 200) -> torch.Tensor:
    ids = torch.randint(VOCABULARY, (texts, 9), generator=torch.Generator().manual_seed(5))
    language = model.language
    hidden = language.llama.model(inputs_embeds=language.llama.get_input_embeddings()(ids), use_cache=False)
    return language.seg_states(hidden.last_hidden_state[:, -1])


def test_fresh_seg_states_start_apart_from_each_other_and_around_zero() -> None:
    drawn = states(spread_model(3.0))
    assert 2.5 < (drawn - drawn.mean(0)).square().mean().sqrt() < 3.5
    assert drawn.mean(0).square().mean().sqrt() < 0.7


def test_without_a_spread_the_draw_is_torchs_own() -> None:
    model = spread_model(0.0)
    torch.manual_seed(0)
    again = Glus(tiny_config(), VOCABULARY, SEG)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_a_model_on_the_meta_device_is_left_to_the_rank_that_holds_the_weights() -> None:
    config = tiny_config()
    with torch.device("meta"):
        language = Language(replace(config, language=replace(config.language, seg_spread=3.0)), VOCABULARY, SEG)
    assert all(parameter.is_meta for parameter in language.text_hidden_fcs.parameters())


def test_a_fresh_image_encoder_knows_places() -> None:
    trunk = spread_model(0.0).segmenter.sam2.image_encoder.trunk
    assert not trunk.pos_embed.any()
    draw_image_encoder(trunk)
    assert 0.1 < trunk.pos_embed.std() < 0.3


def test_a_fresh_memory_changes_nothing_at_first_and_learns_to() -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(tiny_config(train_memory=True, mask_prior=0.0).segmenter)
    pixels, prompts = torch.randn(1, 3, 3, 64, 64), torch.randn(2, 3, 32)
    pixels[:, 1:] = pixels[:, 1:2]
    length = float(segmenter.encode(pixels[0]).levels[-1].detach().square().mean().sqrt())
    look_past_memory(segmenter.sam2.memory_attention, length)
    features = segmenter.encode(pixels[0]).pick(torch.tensor([1, 1]))
    _, first = segmenter.step(features, prompts[:, 0], MemoryBank.empty(7), 0)
    _, other = segmenter.step(features, -3 * prompts[:, 1], MemoryBank.empty(7), 0)
    seen, unseen = (segmenter.step(features, prompts[:, 2], bank, 1)[0] for bank in (first, other))
    assert torch.equal(seen, unseen)
    conditioned = segmenter.sam2.memory_attention.norm(features.levels[-1].flatten(2).transpose(1, 2))
    assert 0.9 * length < conditioned.square().mean().sqrt() < 1.1 * length
    seen.sum().backward()
    for layer in segmenter.sam2.memory_attention.layers:
        assert layer.cross_attn_image.out_proj.weight.grad.abs().sum() > 0
