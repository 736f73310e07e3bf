"""Sizes in a release's config.json: read into our config, or held against it. And the same written back."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from glus.common.errors import ModelError
from glus.common.files import is_there
from glus.common.json_file import parsed_as
from glus.model.model_config import Family, LanguageConfig, ModelConfig, VisionConfig
from glus.model.released.release_files import read_json

Config = TypeVar("Config")

#: Key of transformers' LlamaConfig -> ours.
LANGUAGE_KEYS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "key_value_heads",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tie_word_embeddings": "tie_embeddings",
}
#: Keys that one family has, by the same name in its config and in ours; `_language` gives their values for all.
OF_A_FAMILY = ("sliding_window", "head_dim")
#: Key of transformers' CLIPVisionConfig -> ours.
VISION_KEYS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
}
#: model_type of a release -> our family of language models. GLUS and LISA call theirs "llava", LLaVA++ "llava_phi".
_FAMILIES: dict[str, Family] = {
    **{"llama": "llama", "llava": "llama", "llava_llama": "llama"},
    **{"phi3": "phi3", "llava_phi": "phi3", "llava_phi3": "phi3"},
    "qwen3": "qwen3",
}
#: What our language models are, where transformers' configs would let them be something else.
_LANGUAGE_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1.0,),
    "use_sliding_window": (False,),
}
_CLIP_ONLY: dict[str, tuple[Any, ...]] = {"hidden_act": ("quick_gelu",), "layer_norm_eps": (1e-5,)}


def language_of(folder: Path) -> LanguageConfig:
    """The sizes of a released language model, LISA, LLaVA, GLUS or VideoLISA, from its config.json.

    Missing keys have LlamaConfig's default. Raises ModelError where there is no config.json, or where it is of another
    architecture.
    """
    stored = _language(folder)
    heads = stored.get("num_attention_heads", LanguageConfig.heads)
    named = {ours: stored[theirs] for theirs, ours in LANGUAGE_KEYS.items() if theirs in stored}
    sizes = {"key_value_heads": heads, "family": family_of(folder, stored)}
    sizes |= {own: stored[own] for own in OF_A_FAMILY}
    return validated(LanguageConfig, sizes | named, str(folder / "config.json"))


def family_of(folder: Path, stored: Mapping[str, Any]) -> Family:
    """The family of language models that a config.json names. Raises ModelError where it is none of ours."""
    kind = stored.get("model_type", "llama")
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ModelError(
            f"{folder / 'config.json'}: its model_type is {kind!r}; this code runs a plain Llama, Phi-3 or Qwen3 "
            f"(model_type {', '.join(_FAMILIES)})"
        )
    return family


def check_language(folder: Path, config: ModelConfig, vocab_size: int | None = None) -> None:
    """Hold `config` against the config.json of a language model, LISA, LLaVA, GLUS or VideoLISA.

    `vocab_size` is checked where it is given. Raises ModelError naming every key that differs.
    """
    stored = _language(folder)
    family = family_of(folder, stored)
    if family != config.language.family:
        raise ModelError(
            f"{folder} holds a language model of the family {family}, but model.language.family is "
            f"{config.language.family}: set it to {family}, or name another release"
        )
    wrong = _differing(stored, LANGUAGE_KEYS | {own: own for own in OF_A_FAMILY}, config.language, "model.language")
    others = {
        "mm_hidden_size": ("model.vision.hidden_size", config.vision.hidden_size),
        "mm_vision_select_layer": ("model.vision.select_layer", config.vision.select_layer),
        "mm_projector_type": ("model.vision.projector", config.vision.projector),
        "out_dim": (
            f"model.{'sam1' if config.segmenter.kind == 'sam1' else 'segmenter'}.hidden_dim",
            config.prompt_width,
        ),
    }
    if vocab_size is not None:
        others["vocab_size"] = ("the tokenizer's number of tokens", vocab_size)
    wrong += [
        f"{ours} is {value}, its {theirs} is {stored[theirs]}"
        for theirs, (ours, value) in others.items()
        if theirs in stored and stored[theirs] != value
    ]
    _refuse(folder, wrong)


def projector_of(folder: Path) -> dict[str, Any]:
    """`projector` of the vision half as a release has it; linear, LLaVA's first, where config.json does not say."""
    return {"projector": _language(folder).get("mm_projector_type", "linear")}


def vision_of(folder: Path, **switches: Any) -> VisionConfig:
    """The sizes of a released CLIP, from its config.json; missing keys have CLIP-L/14's value.

    `switches` are values that it does not have (`pool`, `projector`). Raises ModelError.
    """
    stored = _vision(folder)
    named = {ours: stored[theirs] for theirs, ours in VISION_KEYS.items() if theirs in stored}
    return validated(VisionConfig, named | switches, str(folder / "config.json"))


def check_vision(folder: Path, config: VisionConfig) -> None:
    """Compare `config` with the config.json of a CLIP, complete or its vision part, and with its processor's.

    Raises ModelError naming every key that differs.
    """
    stored = _vision(folder)
    wrong = _differing(stored, VISION_KEYS, config, "model.vision")
    processor = folder / "preprocessor_config.json"
    if is_there(processor):
        pixels = {"image_mean": "mean", "image_std": "std"}
        wrong += _differing(
            {key: tuple(value) if isinstance(value, list) else value for key, value in read_json(processor).items()},
            pixels,
            config,
            "model.vision",
        )
    _refuse(folder, wrong)


def validated(cls: type[Config], content: Any, where: str) -> Config:
    """A dataclass from JSON's content. Raises ModelError that says `where` and names the first key that is wrong."""
    remedy = "copy the release again or export the checkpoint again"
    try:
        return parsed_as(content, cls, where, raises=ModelError, remedy=remedy)
    except ModelError as error:
        # Of the dataclass itself, which does not know its file.
        raise error if str(error).startswith(where) else ModelError(f"{where}: {error}") from error


def released_config(
    config: ModelConfig, vocab_size: int, dtype: str, special: Mapping[str, int], tower: str
) -> dict[str, Any]:
    """The config.json of a GLUS or VideoLISA checkpoint, with the reference's keys (of its release of transformers).

    `special` holds bos_token_id, eos_token_id and pad_token_id; `tower` is the CLIP that the reference is to take.
    """
    language = {theirs: getattr(config.language, ours) for theirs, ours in LANGUAGE_KEYS.items()}
    common = {
        "hidden_act": "silu",
        "initializer_range": config.language.initializer_range,
        **language,
        "rope_scaling": None,
        "use_cache": False,
        "vocab_size": vocab_size,
        **special,
        "torch_dtype": dtype,
        "mm_vision_tower": tower,
        "vision_tower": tower,
        "mm_hidden_size": config.vision.hidden_size,
        "mm_vision_select_layer": config.vision.select_layer,
        "mm_vision_select_feature": "patch",
        "mm_use_im_patch_token": False,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": True,
        "image_aspect_ratio": "square",
        "train_mask_decoder": True,
        "out_dim": config.prompt_width,
    }
    return common | {"glus": _glus_keys, "videolisa": _videolisa_keys}[config.method](config)


def _glus_keys(config: ModelConfig) -> dict[str, Any]:
    """transformers 4.31's LlavaConfig with GLUS's keys."""
    projector = {} if config.vision.projector == "linear" else {"mm_projector_type": config.vision.projector}
    return projector | {
        "architectures": ["GLUSForCausalLM"],
        "model_type": "llava",
        "pretraining_tp": 1,
        "transformers_version": "4.31.0",
        "mm_use_im_start_end": True,
        "use_mm_proj": True,
        "pretrain_mm_mlp_adapter": None,
        "image_grid_pinpoints": None,
        "mask_threshold": 0.0,
        "max_hole_area": 0.0,
        "max_sprinkle_area": 0.0,
    }


def _videolisa_keys(config: ModelConfig) -> dict[str, Any]:
    """transformers 4.41's Phi3Config with LLaVA++'s and VideoLISA's keys."""
    return {
        "architectures": ["VideoLISAForCausalLM"],
        "model_type": {"phi3": "llava_phi", "llama": "llava", "qwen3": "qwen3"}[config.language.family],
        "attention_dropout": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "original_max_position_embeddings": config.language.max_positions,
        "sliding_window": config.language.sliding_window or None,
        **({"head_dim": config.language.head_width} if config.language.family == "qwen3" else {}),
        "transformers_version": "4.41.0",
        "mm_projector_type": config.vision.projector,
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 2048,
    }


def released_vision_config(config: VisionConfig, dtype: str) -> dict[str, Any]:
    """The config.json of a CLIP vision tower (transformers' CLIPVisionConfig)."""
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "num_channels": 3,
        **{theirs: getattr(config, ours) for theirs, ours in VISION_KEYS.items()},
        "torch_dtype": dtype,
    }


def released_processor(config: VisionConfig) -> dict[str, Any]:
    """The preprocessor_config.json of a CLIP (transformers' CLIPImageProcessor)."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": config.image_size, "width": config.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
    }


def _language(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    stored = read_json(path)
    if isinstance(stored.get("text_config"), dict):  # LLaVA in transformers' own layout
        stored = _of_llava(stored, path)
    # transformers 5 keeps what concerns the rotary embedding together.
    rotary = stored.get("rope_parameters")
    if isinstance(rotary, dict):
        stored |= {"rope_theta": rotary["rope_theta"]} if "rope_theta" in rotary else {}
        stored |= {"rope_scaling": rotary} if rotary.get("rope_type", "default") != "default" else {}
    family = family_of(folder, stored)
    _refuse_other(path, stored, _LANGUAGE_ONLY, "a plain Llama, Phi-3 or Qwen3")
    heads = stored.get("num_attention_heads")
    # Qwen3's heads have a width of their own, 128 where its config.json does not say.
    width = stored.get("head_dim", 128 if family == "qwen3" else None) or 0
    apart = bool(heads and width and width * heads != stored.get("hidden_size"))
    if apart and family != "qwen3":
        raise ModelError(f"{path}: head_dim {width} times {heads} heads is not its hidden_size: no plain Llama")
    if stored.get("num_key_value_heads") is None and heads:
        stored["num_key_value_heads"] = heads
    # Llama has no window, whatever its config says; in Phi-3's null is none.
    window = stored.get("sliding_window") if family == "phi3" else None
    return stored | {"sliding_window": window or 0, "head_dim": width if apart else 0}


def _of_llava(stored: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The language model's keys of LlavaForConditionalGeneration, and LLaVA's own in LLaVA's first names."""
    _refuse_other(path, stored, {"projector_hidden_act": ("gelu",)}, "LLaVA's two layers with GELU")
    seen = {"mm_vision_select_layer": stored["vision_feature_layer"]} if "vision_feature_layer" in stored else {}
    return {**stored["text_config"], "mm_projector_type": "mlp2x_gelu", **seen}


def _vision(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    stored = read_json(path)
    stored = stored.get("vision_config", stored)
    if not isinstance(stored, dict):
        raise ModelError(f"{path}: its vision_config is no table: download the release again")
    _refuse_other(path, stored, _CLIP_ONLY, "a CLIP vision tower")
    return stored


def _refuse_other(path: Path, stored: Mapping[str, Any], only: Mapping[str, tuple[Any, ...]], what: str) -> None:
    for key, allowed in only.items():
        if key in stored and stored[key] not in allowed:
            raise ModelError(f"{path}: its {key} is {stored[key]!r}; this code runs {what} ({key} {allowed[0]!r})")


def _differing(stored: Mapping[str, Any], keys: Mapping[str, str], config: object, section: str) -> list[str]:
    known = {field.name for field in fields(config)}  # type: ignore[arg-type]
    assert known.issuperset(keys.values())
    return [
        f"{section}.{ours} is {getattr(config, ours)}, its {theirs} is {stored[theirs]}"
        for theirs, ours in keys.items()
        if theirs in stored and stored[theirs] != getattr(config, ours)
    ]


def _refuse(folder: Path, wrong: list[str]) -> None:
    if wrong:
        raise ModelError(
            f"{folder} is of another size than the config: {'; '.join(wrong)}. Set these keys to its values"
        )
