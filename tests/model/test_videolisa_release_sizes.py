"""Names and sizes of VideoLISA's releases, against the recorded names, and each file that does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from glus.common.errors import ModelError
from glus.model.model_config import LanguageConfig, ModelConfig, Sam1Config, SegmenterConfig, VisionConfig
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.release_lora import find_adapters, plain_name
from glus.model.released.release_methods import method_of
from glus.model.released.release_names import videolisa_names
from glus.model.released.release_sam1 import check_sam1, sam1_of
from glus.model.released.release_sizes import check_language, language_of, released_config
from glus.training.release_info import read_release
from glus.training.run_config import WeightsConfig

from .releases import write_glus
from .videolisa_releases import CARRIED, TOWER, config_json, of_peft, rule_tensors, write_clip336, write_videolisa

NANO = ModelConfig(
    method="videolisa",
    language=LanguageConfig(
        family="phi3",
        hidden_size=64,
        intermediate_size=128,
        layers=2,
        heads=4,
        key_value_heads=4,
        max_positions=4096,
        rms_norm_eps=1e-5,
        sliding_window=2047,
    ),
    vision=VisionConfig(
        image_size=336, hidden_size=32, intermediate_size=64, layers=3, heads=4, pool=1, projector="mlp2x_gelu"
    ),
    segmenter=SegmenterConfig(kind="sam1"),
    sam1=Sam1Config(width=32, depth=2, heads=2, global_attention_blocks=(1,)),
)


def write_config(folder: Path, **changed: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config_json(**changed)))
    return folder


@pytest.mark.parametrize("of_training", [False, True])
def test_every_name_of_the_reference_has_a_place_and_comes_back(of_training):
    names = videolisa_names(NANO)
    given = {name: of_peft(name) if of_training else name for name in rule_tensors()}
    shapes = {given[name]: tuple(each.shape) for name, each in rule_tensors().items()}
    adapters = find_adapters(shapes, "here")
    assert list(adapters) == [f"model.layers.{layer}.self_attn.qkv_proj.weight" for layer in (0, 1)]
    plain = [plain_name(name) for name in shapes if ".lora_" not in name]
    ours = {name: names.ours(name) for name in plain if not name.startswith(TOWER)}
    assert None not in ours.values() and len(set(ours.values())) == len(ours) == 197
    assert all(names.released(str(each)) == name for name, each in ours.items())
    assert all(names.ignoring(name) is not None for name in plain if name.startswith(TOWER))


def test_a_release_says_all_sizes_of_itself(tmp_path):
    write_videolisa(tmp_path / "videolisa")
    clip = write_clip336(tmp_path / "clip")
    release = read_release(WeightsConfig(videolisa=str(tmp_path / "videolisa"), vision=str(clip)))
    assert release.model == NANO
    assert method_of(tmp_path / "videolisa") == "videolisa"
    check_language(tmp_path / "videolisa", NANO, vocab_size=572)


def test_a_release_of_glus_is_still_one(tmp_path):
    assert method_of(write_glus(tmp_path / "glus")) is None  # its small config.json does not say
    folder = write_glus(tmp_path / "named", architectures=["GLUSForCausalLM"])
    assert method_of(folder) == "glus"


def test_the_window_of_phi3_is_followed_and_null_is_none(tmp_path):
    assert language_of(write_config(tmp_path, sliding_window=None)) == replace(NANO.language, sliding_window=0)
    assert language_of(write_config(tmp_path, sliding_window=2048)).sliding_window == 2048
    # Llama's class reads no such key.
    llama = language_of(write_config(tmp_path, model_type="llama", sliding_window=2048))
    assert (llama.family, llama.sliding_window) == ("llama", 0)


def test_xtuners_phi3_is_a_llama_in_transformers_layout(tmp_path):
    """config.json of xtuner/llava-phi-3-mini-hf: its language model was converted to Llama's names."""
    text = {"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "rms_norm_eps": 1e-5}
    text |= {"max_position_embeddings": 4096, "sliding_window": 2048, "vocab_size": 32064}
    content = {"model_type": "llava", "projector_hidden_act": "gelu", "vision_feature_layer": -2, "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(content))
    sizes = language_of(tmp_path)
    assert (sizes.family, sizes.hidden_size, sizes.max_positions) == ("llama", 3072, 4096)
    check_language(tmp_path, replace(NANO, language=sizes))
    linear = replace(NANO, language=sizes, vision=replace(NANO.vision, projector="linear"))
    with pytest.raises(ModelError, match="model.vision.projector is linear, its mm_projector_type is mlp2x_gelu"):
        check_language(tmp_path, linear)


def test_config_json_is_written_with_the_references_keys():
    special = {"bos_token_id": 1, "eos_token_id": 560, "pad_token_id": 0}
    written = released_config(NANO, 572, "float32", special, "openai-clip-nano")
    stored = config_json()
    assert {key: written.get(key) for key in stored} == stored
    assert set(written) - set(stored) == {"torch_dtype", "mm_use_im_patch_token"} - set(stored)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "llama"}, "family llama, but model.language.family is phi3: set it to llama"),
        ({"model_type": "phi"}, "its model_type is 'phi'; this code runs a plain Llama, Phi-3 or Qwen3"),
        ({"sliding_window": 2048}, "model.language.sliding_window is 2047, its sliding_window is 2048"),
        ({"sliding_window": None}, "model.language.sliding_window is 2047, its sliding_window is 0"),
        ({"mm_projector_type": "linear"}, "model.vision.projector is mlp2x_gelu, its mm_projector_type is linear"),
        ({"out_dim": 128}, "model.sam1.hidden_dim is 256, its out_dim is 128"),
        ({"vocab_size": 32064}, "the tokenizer's number of tokens is 572, its vocab_size is 32064"),
        ({"rope_scaling": {"type": "longrope"}}, "its rope_scaling is .*longrope"),
        ({"partial_rotary_factor": 0.5}, "its partial_rotary_factor is 0.5"),
    ],
)
def test_a_config_json_that_does_not_fit_is_refused(tmp_path, changed, message):
    with pytest.raises(ModelError, match=message):
        check_language(write_config(tmp_path, **changed), NANO, vocab_size=572)


SHAPES = {
    name.removeprefix("model.visual_model."): tuple(each.shape)
    for name, each in rule_tensors().items()
    if name.startswith("model.visual_model.")
}


def test_sizes_of_sam1_follow_from_its_shapes():
    assert sam1_of(CARRIED, SHAPES) == NANO.sam1
    check_sam1(CARRIED, SHAPES, NANO.sam1)
    with pytest.raises(
        ModelError, match=r"model.sam1.width is 1280, its own is 32; model.sam1.depth is 32, its own is 2"
    ):
        check_sam1(CARRIED, SHAPES, Sam1Config())
    with pytest.raises(ModelError, match="holds no SAM 1"):
        sam1_of(CARRIED, {})


def test_lora_with_one_matrix_or_another_shape_is_refused(tmp_path):
    shapes = {name: tuple(each.shape) for name, each in rule_tensors().items()}
    down = "model.layers.1.self_attn.qkv_proj.lora_A.default.weight"
    with pytest.raises(ModelError, match=r"LoRA of model.layers.1.self_attn.qkv_proj.weight has only one of its two"):
        find_adapters({name: shape for name, shape in shapes.items() if name != down}, "here")
    with pytest.raises(ModelError, match=r"has shapes \[8, 63\] and \[192, 8\], which do not fit \[192, 64\]"):
        find_adapters(shapes | {down: (8, 63)}, "here")


def test_an_unmerged_release_opens_by_its_names(tmp_path):
    folder = write_videolisa(tmp_path / "trained", merged=False)
    shapes = ReleasedWeights.open(folder).shapes
    assert "base_model.model.model.layers.0.self_attn.qkv_proj.base_layer.weight" in shapes
