"""What follows from the sizes, and sizes that do not fit."""

import importlib.util

import pytest

from glus.common.errors import ModelError
from glus.model.glus import Glus
from glus.model.model_config import LanguageConfig, ModelConfig, SegmenterConfig, VisionConfig

from .tiny import tiny_model


def test_the_defaults_give_a_frame_64_tokens_as_in_the_release():
    assert ModelConfig().vision.tokens_per_frame == 64


def test_layers_above_the_hidden_state_that_is_taken_are_not_run():
    assert VisionConfig().layers_run == 23
    assert VisionConfig(layers=3, select_layer=-1).layers_run == 3
    assert VisionConfig(layers=3, select_layer=1).layers_run == 1


@pytest.mark.parametrize("sizes", [{"image_size": 225}, {"pool": 5}])
def test_sizes_that_do_not_fit_are_refused_with_all_three_of_them(sizes):
    vision = {"image_size": 224, "patch_size": 14, "pool": 4} | sizes
    message = f"image_size {vision['image_size']}, patch_size 14 and pool {vision['pool']} do not fit"
    with pytest.raises(ModelError, match=message):
        VisionConfig(**sizes)


@pytest.mark.parametrize("sizes", [{"hidden_dim": 1}, {"hidden_dim": 24}, {"memory_dim": 1}, {"memory_dim": 48}])
def test_widths_that_sam_2_cannot_split_are_refused(sizes):
    with pytest.raises(ModelError, match=r"model.segmenter: hidden_dim \d+ must be a multiple of 16"):
        SegmenterConfig(**sizes)


@pytest.mark.parametrize("sizes", [{"heads": 5}, {"key_value_heads": 3}])
def test_heads_that_do_not_divide_are_refused(sizes):
    with pytest.raises(
        ModelError, match=r"model\.language: hidden_size 4096, heads \d+ and key_value_heads \d+ do not"
    ):
        LanguageConfig(**sizes)


def test_a_segmenter_or_window_of_another_method_is_refused():
    for method in ("glus", "pretraining"):
        with pytest.raises(
            ModelError, match=rf"segmenter.kind is sam1, but model.method is {method}.*set kind to sam2, or method"
        ):
            ModelConfig(method=method, segmenter=SegmenterConfig(kind="sam1"))
    with pytest.raises(ModelError, match=r"sliding_window=2047: the family llama has no window here; set it to 0"):
        LanguageConfig(sliding_window=2047)


def test_attention_is_torchs_own_unless_asked_otherwise():
    assert LanguageConfig().attention == "sdpa"
    assert tiny_model().language.llama.config._attn_implementation == "sdpa"


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed here")
def test_flash_attention_that_is_not_installed_is_refused_before_the_model_is_built():
    asked = LanguageConfig(attention="flash_attention_2")  # 7B: building it would take minutes
    with pytest.raises(ModelError, match=r"flash-attn is not installed: pip install flash-attn .*, or set it to sdpa"):
        Glus(ModelConfig(language=asked), 32003, 32000)
