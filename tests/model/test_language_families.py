"""Llama, Phi-3 and Qwen3 behind one table: sizes, windows, prefixes, LoRA, recomputation."""

import json
from dataclasses import replace

import pytest
import torch

from glus.common.errors import ModelError
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.language.language_families import FAMILIES, lora_targets
from glus.model.model_config import LanguageConfig, ModelConfig
from glus.model.released.release_sizes import check_language, language_of
from glus.model.trainable import add_lora

from .tiny import IMAGE, PAD, VOCABULARY
from .tiny_videolisa import WIDE, small_batch, small_config, small_videolisa

WINDOW = 5


def sizes(family: str, **changes: object) -> LanguageConfig:
    given = {"hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2, "key_value_heads": 2}
    return LanguageConfig(family=family, max_positions=128, **(given | changes))


@pytest.mark.parametrize(("window", "most"), [(WINDOW, WINDOW), (0, 19)])
@torch.no_grad()
def test_a_query_of_phi3_sees_as_many_keys_back_as_the_window_says(window, most):
    """Keys i - W to i, as in transformers 4.40 and FlashAttention 2; newer ones let a query see one less."""
    torch.manual_seed(0)
    model = FAMILIES["phi3"].build(sizes("phi3", sliding_window=window), VOCABULARY).model.eval()
    ids = torch.randint(1, VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(1))
    state = model(input_ids=ids).last_hidden_state[0, -1]
    for back in range(1, 20):
        other = ids.clone()
        other[0, -1 - back] = (other[0, -1 - back] + 7) % VOCABULARY
        same = torch.equal(model(input_ids=other).last_hidden_state[0, -1], state)
        assert same == (back > most), back


@pytest.mark.parametrize(("family", "window"), [("llama", 0), ("phi3", 0), ("phi3", WINDOW), ("qwen3", 0)])
@torch.no_grad()
def test_prompts_read_after_a_prefix_end_in_the_states_of_complete_prompts(family, window):
    """The prefix is longer than the window."""
    language = small_videolisa(small_config(family, sliding_window=window)).language.eval()
    tokens = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(6))
    beginning, tails = [1, IMAGE, 5, 6], [[7, 8, 9], [11, PAD, PAD], [12, 13, PAD]]
    ids = torch.tensor([beginning + tail for tail in tails])
    together = language.read(ids, ids != PAD, tokens.expand(3, 1, 9, 32))
    prefix = language.prefix(torch.tensor(beginning), tokens)
    rest = torch.tensor(tails)
    after = language.read(rest, rest != PAD, tokens[:0].expand(3, 0, 9, 32), prefix=prefix)
    assert prefix.length == 12
    real = rest != PAD
    torch.testing.assert_close(after.hidden[real], together.hidden[:, 12:][real], atol=1e-5, rtol=1e-5)


def test_qwen3s_heads_may_be_wider_than_their_share_of_the_hidden_size():
    model = FAMILIES["qwen3"].build(sizes("qwen3", head_dim=24), VOCABULARY)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (48, 32) and attention.q_norm.weight.shape == (24,)
    assert FAMILIES["qwen3"].build(sizes("qwen3"), VOCABULARY).model.layers[0].self_attn.q_norm.weight.shape == (16,)
    with pytest.raises(ModelError, match=r"head_dim=24: heads of llama are hidden_size / heads wide; set it to 0"):
        sizes("llama", head_dim=24)


def test_a_window_belongs_to_phi3():
    with pytest.raises(ModelError, match="sliding_window=5: the family llama has no window here"):
        sizes("llama", sliding_window=5)


@pytest.mark.parametrize(
    ("family", "adapted"),
    [("llama", ["q_proj", "v_proj"]), ("phi3", ["qkv_proj"]), ("qwen3", ["q_proj", "v_proj"])],
)
def test_lora_goes_to_what_makes_queries_and_values(family, adapted):
    config = small_config(family)
    model = small_videolisa(config)
    assert lora_targets(model.language.llama, config.lora.targets) == adapted
    add_lora(model, config.lora)
    names = {name.split(".")[-2] for name, _ in model.language.llama.named_modules() if name.endswith(".lora_A")}
    assert names == set(adapted)


def test_lora_targets_that_are_nowhere_are_refused():
    model = FAMILIES["phi3"].build(sizes("phi3"), VOCABULARY)
    with pytest.raises(ModelError, match="no linear layer contains query or value; there are down_proj, gate_up_proj"):
        lora_targets(model, ("query", "value"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "phi3", "qwen3"])
def test_activations_of_every_family_are_recomputed_with_the_same_gradients(family):
    found = []
    for recompute in (False, True):
        model = small_videolisa(small_config(family)).train()
        if recompute:
            recompute_activations(model)
        model(small_batch(WIDE)).loss.backward()
        found.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    plain, again = found
    assert plain.keys() == again.keys() and any("layers.1" in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("stored", "ours"), [({"head_dim": 128}, 128), ({}, 128), ({"head_dim": 64}, 0)])
def test_qwen3s_width_of_heads_is_read_from_its_config_json(tmp_path, stored, ours):
    content = {"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(content | stored))
    read = language_of(tmp_path)
    assert (read.family, read.head_dim) == ("qwen3", ours)
    check_language(tmp_path, ModelConfig(language=read))
    other = replace(read, head_dim=32)
    with pytest.raises(ModelError, match=f"model.language.head_dim is 32, its head_dim is {ours}"):
        check_language(tmp_path, ModelConfig(language=other))
