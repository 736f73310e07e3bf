"""Sizes of a released SAM 2, which has no config.json: read off its shapes, and what shapes do not show off a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from glus.common.errors import ModelError
from glus.model.model_config import SegmenterConfig

Shapes = Mapping[str, tuple[int, ...]]
_BLOCK = "image_encoder.trunk.blocks.{}.attn.proj.weight"


@dataclass(frozen=True)
class Hiera:
    """What the shapes of SAM 2's image encoder do not show; its own config (sam2_hiera_*.yaml) says it."""

    heads: int
    """num_heads."""
    global_attention_blocks: tuple[int, ...]
    """global_att_blocks."""
    window_spec: tuple[int, ...] = (8, 4, 14, 7)
    """window_spec; where the config is silent, the default is right."""


#: (embed_dim, stages) -> the rest, of sam2_hiera_{t,s,b+,l}.yaml; SAM 2.1's are the same.
_RELEASED: dict[tuple[int, tuple[int, ...]], Hiera] = {
    (96, (1, 2, 7, 2)): Hiera(1, (5, 7, 9)),
    (96, (1, 2, 11, 2)): Hiera(1, (7, 10, 13)),
    (112, (2, 3, 16, 3)): Hiera(2, (12, 16, 20)),
    (144, (2, 6, 36, 4)): Hiera(2, (23, 33, 43), (8, 4, 16, 8)),
}
#: The small SAM 2 with which the reference's outputs in tests/data/parity were recorded. Others of ours may have its
#: shapes, so that nothing is held against it.
_RECORDED = {(16, (1, 1, 2, 1)): Hiera(1, (3,))}


def segmenter_of(place: Path, shapes: Shapes, hiera: Hiera | None = None) -> SegmenterConfig:
    """The config of a SAM 2; `shapes` by the names of sam2_hiera_*.pt, `hiera` where its size is none that is known.

    Raises ModelError where `place` holds no SAM 2, or one of another size without a `hiera` that fits it.
    """
    sizes = _shown(shapes)
    if not sizes:
        raise ModelError(f"{place} holds no SAM 2: name a GLUS checkpoint, or a sam2_hiera_*.pt")
    hiera = hiera or (_RELEASED | _RECORDED).get((sizes["embed_dim"], sizes["stages"]))
    if hiera is None:
        raise ModelError(
            f"{place}: its SAM 2 is none of the released sizes (embed_dim {sizes['embed_dim']}, stages "
            f"{list(sizes['stages'])}), and its weights do not show all of it: say hiera.heads=N "
            "hiera.global_attention_blocks=[N,...] hiera.window_spec=[N,N,N,N] as in its sam2_hiera_*.yaml"
        )
    _check_fit(place, hiera, sizes["embed_dim"], sizes["stages"])
    return SegmenterConfig(**sizes, **vars(hiera))


def _check_fit(place: Path, hiera: Hiera, embed_dim: int, stages: tuple[int, ...]) -> None:
    """Raises ModelError where sam2 could not compute with it. A stage begins by pooling, which global blocks cannot."""
    starts = set(accumulate(stages[:-1]))
    possible = [block for block in range(sum(stages)) if block not in starts]
    fits = {
        "heads": hiera.heads > 0 and embed_dim % hiera.heads == 0,
        "global_attention_blocks": set(hiera.global_attention_blocks) <= set(possible),
        "window_spec": len(hiera.window_spec) == len(stages) and min(hiera.window_spec) > 0,
    }
    for name in [name for name, fit in fits.items() if not fit]:
        raise ModelError(
            f"hiera.{name}={getattr(hiera, name)} does not fit {place}: embed_dim {embed_dim}, stages {list(stages)}, "
            f"blocks with global attention among {possible}"
        )


def check_segmenter(place: Path, shapes: Shapes, config: SegmenterConfig) -> None:
    """Hold `config` against what the weights show, and for a released size against the table too.

    Raises ModelError naming every key that differs.
    """
    sizes = _shown(shapes)
    released = _RELEASED.get((sizes["embed_dim"], sizes["stages"])) if sizes else None
    wrong = [
        f"model.segmenter.{key} is {getattr(config, key)}, its own is {value}"
        for key, value in (sizes | (vars(released) if released else {})).items()
        if getattr(config, key) != value
    ]
    if wrong:
        raise ModelError(f"{place} is of another size than the config: {'; '.join(wrong)}. Set these keys to it")


def _shown(shapes: Shapes) -> dict[str, Any]:
    """Our keys and the values that the shapes show; empty where a name is missing (loading reports which)."""
    try:
        widths: list[int] = []
        while _BLOCK.format(len(widths)) in shapes:
            widths.append(shapes[_BLOCK.format(len(widths))][0])
        embed_dim = shapes["image_encoder.trunk.patch_embed.proj.weight"][0]
        stages = tuple(len(list(blocks)) for _, blocks in groupby(widths))
        positions = shapes["image_encoder.trunk.pos_embed"]
        return {
            "embed_dim": embed_dim,
            "stages": stages,
            "window_pos_embed_size": (positions[2], positions[3]),
            "hidden_dim": shapes["no_mem_embed"][-1],
            "decoder_feedforward": shapes["sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight"][0],
            "memory_dim": shapes["maskmem_tpos_enc"][-1],
            "memory_layers": _layers(shapes, "memory_attention.layers."),
            "memory_feedforward": shapes["memory_attention.layers.0.linear1.weight"][0],
            "memory_fuser_layers": _layers(shapes, "memory_encoder.fuser.layers."),
            "memories": shapes["maskmem_tpos_enc"][0],
        }
    except LookupError:
        return {}


def _layers(shapes: Shapes, begin: str) -> int:
    return len({name[len(begin) :].split(".")[0] for name in shapes if name.startswith(begin)})
