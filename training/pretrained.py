"""Load released weights for a run or a command: sizes are checked first, then each part is loaded."""

from dataclasses import replace
from pathlib import Path

import torch

from glus.common.errors import ModelError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.inference.mask_propagation import MaskPropagation
from glus.model.methods import AnyModel, model_class
from glus.model.model_config import LoraConfig, ModelConfig
from glus.model.released.late_values import LateValues
from glus.model.released.load_release import FreshTokens, load_complete, load_language, load_segmenter, load_vision
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.release_methods import RELEASED_METHODS, TAKEN, method_of
from glus.model.released.release_sam1 import check_sam1, is_sam1
from glus.model.released.release_sam2 import Shapes, check_segmenter, segmenter_of
from glus.model.released.release_sizes import check_language, check_vision
from glus.model.trainable import build_empty
from glus.training.release_info import read_release, segmenter_shapes, vision_place
from glus.training.run_config import WeightsConfig


def check_released(weights: WeightsConfig, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Compare the config with the config.json of each release and SAM 2's shapes, before anything is loaded.

    Raises ModelError naming the keys that differ, or for a tokenizer without [SEG] or a part that is missing.
    """
    _check_methods(weights, config)
    vision = vision_place(weights)
    if weights.complete:
        method, place = weights.complete
        if tokenizer.fresh:
            raise ModelError(
                f"the tokenizer {tokenizer.path} has no {', '.join(tokenizer.fresh)}, with which a "
                f"{RELEASED_METHODS[method].title} checkpoint is trained: copy added_tokens.json of the release into "
                "its folder, or leave model.tokenizer empty"
            )
        check_language(Path(place), config, tokenizer.vocab_size)
        if TAKEN[config.method].segmenter:
            _check_segmenter(Path(place), segmenter_shapes(Path(place)), config)
    if weights.language:
        check_language(Path(weights.language), config)
    if vision is not None:
        check_vision(vision, config.vision)
    if weights.segmenter:
        file = Path(weights.segmenter)
        _check_segmenter(file, ReleasedWeights.open(file).shapes, config)


def _check_methods(weights: WeightsConfig, config: ModelConfig) -> None:
    """Refuse a checkpoint of another method than the config's or than its key's."""
    key, place = weights.complete or ("", "")
    taken = TAKEN[config.method]
    if key and key != taken.method:
        title = RELEASED_METHODS[key].title
        raise ModelError(
            f"weights.{key} is a {title} checkpoint, but model.method is {config.method}: "
            f"set model.method to {key}, or name the weights of {taken.method}"
        )
    if weights.segmenter and not taken.segmenter:
        raise ModelError(f"weights.segmenter: model.method is {config.method}, which has no segmenter; leave it out")
    for given, folder in ((key, place), ("language", weights.language)):
        found = method_of(Path(folder)) if folder and Path(folder).is_dir() else None
        # A GLUS as `language` has a message of its own (load_language).
        if found and found != given and (given, found) != ("language", "glus"):
            raise ModelError(
                f"weights.{given}: {folder} is a {RELEASED_METHODS[found].title} checkpoint: give it as "
                f"weights.{found}, with model.method={found}"
            )


def _check_segmenter(place: Path, shapes: Shapes, config: ModelConfig) -> None:
    """Compare the config with a SAM 1 or SAM 2, by its own names. Raises ModelError naming what differs."""
    kind = "sam1" if is_sam1(shapes) else "sam2"
    # What is neither is reported by its names when it is loaded.
    if kind != config.segmenter.kind and (kind == "sam1" or "image_encoder.trunk.pos_embed" in shapes):
        raise ModelError(
            f"{place} holds SAM {kind[-1]}, but model.segmenter.kind is {config.segmenter.kind}: set it to {kind}, or "
            f"name a SAM {config.segmenter.kind[-1]}"
        )
    if kind == "sam1":
        check_sam1(place, shapes, config.sam1)
    else:
        check_segmenter(place, shapes, config.segmenter)


def load_released(
    model: AnyModel, weights: WeightsConfig, tokenizer: Tokenizer, seed: int, values: LateValues | None = None
) -> list[str]:
    """Load what `weights` names into a model. Returns lines to print: loaded, ignored and why, drawn.

    Parameters on the meta device are only compared with them, or with `values` read when they are asked for.
    Raises ModelError where files, names or shapes do not fit.
    """
    notes: list[str] = []
    if weights.complete:
        notes += load_complete(model, Path(weights.complete[1]), values)
    if weights.language:
        fresh = FreshTokens(len(tokenizer.fresh), model.config.language.initializer_range, seed)
        notes += load_language(model, Path(weights.language), fresh, values)
    vision = vision_place(weights)
    if vision is not None:
        notes += load_vision(model, vision, values)
    if weights.segmenter:
        notes += load_segmenter(model, Path(weights.segmenter), values)
    return notes


def open_release(weights: WeightsConfig, config: ModelConfig | None = None) -> tuple[AnyModel, Tokenizer, list[str]]:
    """A complete checkpoint in the released layout, ready to predict (eval mode, on the CPU), without LoRA.

    `config` gives sizes, else `read_release`. Returns model, tokenizer and lines to print. Raises ModelError or
    DataError.
    """
    config = config or read_release(weights).model
    # In float32, which flash-attn does not compute. LoRA that is not merged has been trained with this alpha.
    lora = LoraConfig(rank=0, alpha=config.lora.alpha)
    config = replace(config, lora=lora, language=replace(config.language, attention="sdpa"))
    tokenizer = Tokenizer(_folder(weights))
    check_released(weights, config, tokenizer)
    load_released(build_empty(config, tokenizer.vocab_size, tokenizer.seg_id), weights, tokenizer, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config.method)(config, tokenizer.vocab_size, tokenizer.seg_id)
    notes = load_released(model, weights, tokenizer, 0)
    return model.eval(), tokenizer, notes


def open_propagation(file: Path) -> tuple[MaskPropagation, list[str]]:
    """A SAM 2 that follows given masks (eval mode, on the CPU), and lines to print; `file` is a sam2_hiera_*.pt.

    Raises ModelError where the file does not fit, or is of SAM 2.1, whose object pointers have parameters of their own.
    """
    shapes = ReleasedWeights.open(file).shapes
    if "obj_ptr_tpos_proj.weight" in shapes:
        raise ModelError(f"{file} is a SAM 2.1, which this code cannot follow masks with: name a sam2_hiera_*.pt")
    model = MaskPropagation(segmenter_of(file, shapes))
    return model.eval(), load_segmenter(model, file)


def released_files(weights: WeightsConfig) -> list[Path]:
    """Every file of weights of a complete checkpoint and its CLIP, in one order. Raises ModelError."""
    places = [_folder(weights), vision_place(weights)]
    return [file for place in places if place for file in sorted(ReleasedWeights.open(place).shards)]


def _folder(weights: WeightsConfig) -> Path:
    assert weights.complete is not None
    return Path(weights.complete[1])
