"""Released weights as a run or a command takes them: sizes checked first, then each part loaded into its place."""

from dataclasses import replace
from pathlib import Path

import torch

from glus.common.json_file import read_as
from glus.data_pipeline.tokenizer import Tokenizer
from glus.model.config import LoraConfig, ModelConfig
from glus.model.errors import ModelError
from glus.model.glus import Glus
from glus.model.released_config import check_language, check_vision, language_of, vision_of
from glus.model.released_files import ReleasedWeights
from glus.model.released_names import SEGMENTER
from glus.model.released_sam2 import Hiera, check_segmenter, segmenter_of
from glus.model.weights import FreshTokens, load_glus, load_language, load_segmenter, load_vision
from glus.training.config import WeightsConfig

#: Beside the released layout `glus export` writes the vision tower, and every size and switch of the model. The
#: reference takes only towers with "clip" or "openai" in their path.
VISION_TOWER, MODEL_CONFIG = "clip_vision_tower", "glus_model.json"


def check_released(weights: WeightsConfig, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Hold the config against the config.json of each release and SAM 2's shapes, before anything is loaded.

    Raises ModelError naming the keys that differ, or for a tokenizer without [SEG] or a part that is missing.
    """
    vision = _vision_of(weights)
    if weights.glus:
        if tokenizer.fresh:
            raise ModelError(
                f"the tokenizer {tokenizer.path} lacks {', '.join(tokenizer.fresh)}, with which a GLUS checkpoint is "
                "trained: copy added_tokens.json of the release beside it, or leave model.tokenizer empty"
            )
        check_language(Path(weights.glus), config, tokenizer.vocab_size)
        check_segmenter(Path(weights.glus), _sam2_of(Path(weights.glus)), config.segmenter)
    if weights.language:
        check_language(Path(weights.language), config)
    if vision is not None:
        check_vision(vision, config.vision)
    if weights.segmenter:
        file = Path(weights.segmenter)
        check_segmenter(file, ReleasedWeights.open(file).shapes, config.segmenter)


def load_released(model: Glus, weights: WeightsConfig, tokenizer: Tokenizer, seed: int) -> list[str]:
    """Load what `weights` names into a whole model. Returns lines to tell: taken, ignored and why, drawn.

    Raises ModelError where files, names or shapes do not fit.
    """
    told: list[str] = []
    if weights.glus:
        told += load_glus(model, Path(weights.glus))
    if weights.language:
        fresh = FreshTokens(len(tokenizer.fresh), model.config.language.initializer_range, seed)
        told += load_language(model, Path(weights.language), fresh)
    vision = _vision_of(weights)
    if vision is not None:
        told += load_vision(model, vision)
    if weights.segmenter:
        told += load_segmenter(model, Path(weights.segmenter))
    return told


def open_glus(folder: Path, vision: str = "", config: ModelConfig | None = None) -> tuple[Glus, Tokenizer, list[str]]:
    """A GLUS checkpoint in the released layout, ready to predict (eval mode, on the CPU), without LoRA.

    `vision` is the folder of its CLIP; `config` gives sizes, else `released_model_config`.
    Returns model, tokenizer and lines to tell. Raises ModelError or DataError.
    """
    weights = WeightsConfig(glus=str(folder), vision=vision)
    config = config or released_model_config(weights)
    # In float32, which flash-attn does not compute.
    config = replace(config, lora=LoraConfig(rank=0), language=replace(config.language, attention="sdpa"))
    tokenizer = Tokenizer(folder)
    check_released(weights, config, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Glus(config, tokenizer.vocab_size, tokenizer.seg_id)
    told = load_released(model, weights, tokenizer, 0)
    return model.eval(), tokenizer, told


def released_model_config(weights: WeightsConfig, hiera: Hiera | None = None) -> ModelConfig:
    """Sizes of a GLUS checkpoint and its CLIP: those that `glus export` wrote beside it, else its own.

    Those are of both config.json and of SAM 2's shapes; what these do not show is `hiera` where SAM 2 is none of the
    released sizes. Raises ModelError where the vision tower or a config.json is absent, where one is of another
    architecture, where `hiera` lacks or is given beside what says it already.
    """
    stored = Path(weights.glus) / MODEL_CONFIG
    if not stored.is_file():
        folder, vision = Path(weights.glus), _vision_of(weights)
        assert vision is not None
        return ModelConfig(
            language=language_of(folder),
            vision=vision_of(vision),
            segmenter=segmenter_of(folder, _sam2_of(folder), hiera),
        )
    if hiera is not None:
        raise ModelError(f"hiera: {stored} says all sizes already; leave it out")
    return read_as(stored, ModelConfig, "model's config", raises=ModelError, remedy="export the checkpoint again")


def released_files(weights: WeightsConfig) -> list[Path]:
    """Every file of weights of a GLUS checkpoint and its CLIP, in one order. Raises ModelError."""
    places = [Path(weights.glus), _vision_of(weights)]
    return [file for place in places if place for file in sorted(ReleasedWeights.open(place).shards)]


def _sam2_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the SAM 2 in a GLUS checkpoint, by SAM 2's own names."""
    shapes = ReleasedWeights.open(folder).shapes
    return {name.removeprefix(SEGMENTER): shape for name, shape in shapes.items() if name.startswith(SEGMENTER)}


def _vision_of(weights: WeightsConfig) -> Path | None:
    """Where the vision tower comes from; None where nothing names one. Raises ModelError for a GLUS without."""
    if weights.vision or not weights.glus:
        return Path(weights.vision) if weights.vision else None
    within = Path(weights.glus) / VISION_TOWER
    if not within.is_dir():
        raise ModelError(
            f"{weights.glus} holds no vision tower, as GLUS is released: name the folder of "
            "openai/clip-vit-large-patch14 (--vision FOLDER; weights.vision=FOLDER in training)"
        )
    return within
