"""Sizes of SAM 2 read off its weights, against sam2's own configs."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate import init_empty_weights

from glus.common.errors import ModelError
from glus.model.model_config import SegmenterConfig
from glus.model.released.release_sam2 import Hiera, check_segmenter, segmenter_of
from glus.model.sam2_parts import build_sam2

from .reference import NANO
from .releases import sam2_tensors

Shapes = dict[str, tuple[int, ...]]


def of_sam2s_own_config(name: str) -> SegmenterConfig:
    """Our config as sam2's YAML has it; what the YAML leaves out is the default of sam2's classes."""
    content = yaml.safe_load((files("sam2") / "configs" / "sam2" / f"sam2_hiera_{name}.yaml").read_text("utf-8"))
    trunk: dict[str, Any] = content["model"]["image_encoder"]["trunk"]
    return SegmenterConfig(
        embed_dim=trunk["embed_dim"],
        heads=trunk["num_heads"],
        stages=tuple(trunk.get("stages", (2, 3, 16, 3))),
        global_attention_blocks=tuple(trunk.get("global_att_blocks", (12, 16, 20))),
        window_pos_embed_size=tuple(trunk.get("window_pos_embed_bkg_spatial_size", (14, 14))),
        window_spec=tuple(trunk.get("window_spec", (8, 4, 14, 7))),
    )


@pytest.mark.parametrize("name", ["t", "s", "b+", "l"])
def test_the_four_released_sizes_are_known_by_their_shapes(name):
    config = of_sam2s_own_config(name)
    # Shapes without values; buffers are real: sam2 moves one to the GPU while it builds, where there is one.
    with init_empty_weights(include_buffers=False):
        shapes = {key: tuple(each.shape) for key, each in build_sam2(config).state_dict().items()}
    assert segmenter_of(Path("sam2.pt"), shapes) == config
    check_segmenter(Path("sam2.pt"), shapes, config)


def nano_shapes() -> Shapes:
    return {name: tuple(each.shape) for name, each in sam2_tensors().items()}


def test_a_size_that_was_not_released_is_checked_by_what_its_shapes_show():
    check_segmenter(Path("sam2.pt"), nano_shapes(), NANO.segmenter)
    with pytest.raises(ModelError) as caught:
        check_segmenter(Path("sam2.pt"), nano_shapes(), SegmenterConfig())
    assert "model.segmenter.stages is (2, 6, 36, 4), its own is (1, 1, 2, 1)" in str(caught.value)
    assert "model.segmenter.memory_feedforward is 2048, its own is 256" in str(caught.value)


def test_what_the_shapes_of_an_unusual_size_do_not_show_can_be_said():
    shapes = nano_shapes()
    dropout = SegmenterConfig.dropout
    assert segmenter_of(Path("sam2.pt"), shapes) == replace(NANO.segmenter, dropout=dropout)  # the recorded one
    name = "image_encoder.trunk.patch_embed.proj.weight"
    shapes[name] = (24, *shapes[name][1:])
    with pytest.raises(ModelError, match=r"released sizes \(embed_dim 24, stages \[1, 1, 2, 1\]\).*say hiera\.heads=N"):
        segmenter_of(Path("sam2.pt"), shapes)
    said = segmenter_of(Path("sam2.pt"), shapes, Hiera(heads=3, global_attention_blocks=(0, 3)))
    assert said == replace(
        NANO.segmenter,
        embed_dim=24,
        heads=3,
        global_attention_blocks=(0, 3),
        window_spec=(8, 4, 14, 7),
        dropout=dropout,
    )


@pytest.mark.parametrize(
    ("hiera", "message"),
    [
        (Hiera(5, ()), r"hiera\.heads=5 does not fit sam2\.pt: embed_dim 16, stages \[1, 1, 2, 1\]"),
        (Hiera(1, (2,)), r"hiera\.global_attention_blocks=\(2,\) does not fit .* global attention among \[0, 3\]"),
        (Hiera(1, (5,)), r"hiera\.global_attention_blocks=\(5,\) does not fit"),
        (Hiera(1, (3,), (8, 4)), r"hiera\.window_spec=\(8, 4\) does not fit"),
    ],
)
def test_what_is_said_must_fit_what_is_shown(hiera, message):
    with pytest.raises(ModelError, match=message):
        segmenter_of(Path("sam2.pt"), nano_shapes(), hiera)


def test_something_else_is_no_sam_2():
    with pytest.raises(ModelError, match="lisa holds no SAM 2"):
        segmenter_of(Path("lisa"), {"lm_head.weight": (3, 4)})
