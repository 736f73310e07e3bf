"""Load released weights for a run or a command: sizes are checked first, then each part is loaded."""

from dataclasses import replace
from pathlib import Path

import torch

from glus.common.errors import ModelError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.glus import Glus
from glus.model.model_config import LoraConfig, ModelConfig
from glus.model.released.load_release import FreshTokens, load_glus, load_language, load_segmenter, load_vision
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.release_sam2 import check_segmenter
from glus.model.released.release_sizes import check_language, check_vision
from glus.model.trainable import build_empty
from glus.training.release_info import read_release, sam2_shapes, vision_place
from glus.training.run_config import WeightsConfig


def check_released(weights: WeightsConfig, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Compare the config with the config.json of each release and SAM 2's shapes, before anything is loaded.

    Raises ModelError naming the keys that differ, or for a tokenizer without [SEG] or a part that is missing.
    """
    vision = vision_place(weights)
    if weights.glus:
        if tokenizer.fresh:
            raise ModelError(
                f"the tokenizer {tokenizer.path} has no {', '.join(tokenizer.fresh)}, with which a GLUS checkpoint is "
                "trained: copy added_tokens.json of the release into its folder, or leave model.tokenizer empty"
            )
        check_language(Path(weights.glus), config, tokenizer.vocab_size)
        check_segmenter(Path(weights.glus), sam2_shapes(Path(weights.glus)), config.segmenter)
    if weights.language:
        check_language(Path(weights.language), config)
    if vision is not None:
        check_vision(vision, config.vision)
    if weights.segmenter:
        file = Path(weights.segmenter)
        check_segmenter(file, ReleasedWeights.open(file).shapes, config.segmenter)


def load_released(model: Glus, weights: WeightsConfig, tokenizer: Tokenizer, seed: int) -> list[str]:
    """Load what `weights` names into a complete model. Returns lines to print: loaded, ignored and why, drawn.

    A model without weights is only compared with them.
    Raises ModelError where files, names or shapes do not fit.
    """
    notes: list[str] = []
    if weights.glus:
        notes += load_glus(model, Path(weights.glus))
    if weights.language:
        fresh = FreshTokens(len(tokenizer.fresh), model.config.language.initializer_range, seed)
        notes += load_language(model, Path(weights.language), fresh)
    vision = vision_place(weights)
    if vision is not None:
        notes += load_vision(model, vision)
    if weights.segmenter:
        notes += load_segmenter(model, Path(weights.segmenter))
    return notes


def open_glus(folder: Path, vision: str = "", config: ModelConfig | None = None) -> tuple[Glus, Tokenizer, list[str]]:
    """A GLUS checkpoint in the released layout, ready to predict (eval mode, on the CPU), without LoRA.

    `vision` is the folder of its CLIP; `config` gives sizes, else `read_release`.
    Returns model, tokenizer and lines to print. Raises ModelError or DataError.
    """
    weights = WeightsConfig(glus=str(folder), vision=vision)
    config = config or read_release(weights).model
    # In float32, which flash-attn does not compute.
    config = replace(config, lora=LoraConfig(rank=0), language=replace(config.language, attention="sdpa"))
    tokenizer = Tokenizer(folder)
    check_released(weights, config, tokenizer)
    load_released(build_empty(config, tokenizer.vocab_size, tokenizer.seg_id), weights, tokenizer, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Glus(config, tokenizer.vocab_size, tokenizer.seg_id)
    notes = load_released(model, weights, tokenizer, 0)
    return model.eval(), tokenizer, notes


def released_files(weights: WeightsConfig) -> list[Path]:
    """Every file of weights of a GLUS checkpoint and its CLIP, in one order. Raises ModelError."""
    places = [Path(weights.glus), vision_place(weights)]
    return [file for place in places if place for file in sorted(ReleasedWeights.open(place).shards)]
