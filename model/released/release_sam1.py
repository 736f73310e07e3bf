"""Sizes of a released SAM 1, which has no config.json: all of them follow from its shapes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glus.common.errors import ModelError
from glus.model.model_config import Sam1Config

Shapes = Mapping[str, tuple[int, ...]]
_BLOCK = "image_encoder.blocks.{}.attn.rel_pos_h"


def is_sam1(shapes: Shapes) -> bool:
    """Return whether names are those of a SAM 1."""
    return "image_encoder.pos_embed" in shapes


def sam1_of(place: Path, shapes: Shapes) -> Sam1Config:
    """The config of a SAM 1; `shapes` by the names of sam_vit_h_4b8939.pth. Raises ModelError where it is none."""
    sizes = _shown(shapes)
    if not sizes:
        raise ModelError(f"{place} holds no SAM 1: name a VideoLISA checkpoint, or sam_vit_h_4b8939.pth")
    return replace(Sam1Config(), **sizes)


def check_sam1(place: Path, shapes: Shapes, config: Sam1Config) -> None:
    """Compare `config` with what the weights show. Raises ModelError naming every key that differs."""
    wrong = [
        f"model.sam1.{key} is {getattr(config, key)}, its own is {value}"
        for key, value in _shown(shapes).items()
        if getattr(config, key) != value
    ]
    if wrong:
        raise ModelError(f"{place} is of another size than the config: {'; '.join(wrong)}. Set these keys to it")


def _shown(shapes: Shapes) -> dict[str, Any]:
    """Our keys and the values that the shapes show; empty where a name is missing (loading reports which).

    A block's table of relative positions has 2n - 1 rows, n being the side of its window or of the complete grid.
    """
    try:
        _, grid, _, width = shapes["image_encoder.pos_embed"]
        patch_size = shapes["image_encoder.patch_embed.proj.weight"][-1]
        sides: list[int] = []
        while _BLOCK.format(len(sides)) in shapes:
            sides.append((shapes[_BLOCK.format(len(sides))][0] + 1) // 2)
        windows = {side for side in sides if side != grid}
        if not sides or len(windows) > 1:
            return {}
        shown = {
            "image_size": grid * patch_size,
            "patch_size": patch_size,
            "width": width,
            "depth": len(sides),
            "heads": width // shapes[_BLOCK.format(0)][1],
            "global_attention_blocks": tuple(block for block, side in enumerate(sides) if side == grid),
            "hidden_dim": shapes["image_encoder.neck.0.weight"][0],
            "decoder_feedforward": shapes["mask_decoder.transformer.layers.0.mlp.lin1.weight"][0],
        }
        return shown | {"window": next(iter(windows))} if windows else shown
    except (LookupError, ValueError, ZeroDivisionError):
        return {}
