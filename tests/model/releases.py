"""Weights in the layouts in which the real ones are released, small, by the rule of tests/model/reference.py."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.glus import Glus
from glus.model.model_config import ModelConfig
from glus.training.pretrained import open_release
from glus.training.run_config import WeightsConfig

from .reference import CARRIED, NANO, rule_weight

SEG, VOCABULARY = 560, 563
TOWER, SAM2 = "model.vision_tower.vision_tower.", "model.visual_model."
TOKENIZER_FILES = ("tokenizer.model", "added_tokens.json", "special_tokens_map.json")


@cache
def rule_tensors() -> Mapping[str, Tensor]:
    """Every parameter of the recorded model by its reference name, as float16."""
    shapes = json.loads((CARRIED / "parameters.json").read_text("utf-8"))
    return {name: torch.from_numpy(rule_weight(name, tuple(shape), SEG)).half() for name, shape in shapes.items()}


def open_glus(folder: Path, vision: str = "", config: ModelConfig | None = None) -> tuple[Glus, Tokenizer, list[str]]:
    """`open_release` of a GLUS checkpoint; `vision` is the folder of its CLIP."""
    model, tokenizer, notes = open_release(WeightsConfig(glus=str(folder), vision=vision), config)
    assert isinstance(model, Glus)
    return model, tokenizer, notes


def language_config(**changed: object) -> dict[str, object]:
    """config.json of the recorded GLUS."""
    sizes = NANO.language
    return {
        "model_type": "llava",
        "hidden_act": "silu",
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "max_position_embeddings": sizes.max_positions,
        "rms_norm_eps": sizes.rms_norm_eps,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "mm_hidden_size": NANO.vision.hidden_size,
        "mm_vision_select_layer": -2,
        "out_dim": 256,
        "vocab_size": VOCABULARY,
    } | changed


def write_shards(tensors: Mapping[str, Tensor], folder: Path, form: str = "bin", shards: int = 2) -> None:
    """Weights and their index as transformers writes them; form: bin or safetensors."""
    whole = {"bin": "pytorch_model.bin", "safetensors": "model.safetensors"}[form]
    stem, suffix = whole.split(".")
    names, index = list(tensors), {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{suffix}"
        part = {name: tensors[name].clone() for name in names[number::shards]}
        save_file(part, folder / file) if form == "safetensors" else torch.save(part, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_glus(folder: Path, form: str = "bin", **config: object) -> Path:
    """A GLUS checkpoint: no vision tower inside."""
    folder.mkdir(parents=True)
    write_shards({name: each for name, each in rule_tensors().items() if not name.startswith(TOWER)}, folder, form)
    (folder / "config.json").write_text(json.dumps(language_config(**config)))
    for name in TOKENIZER_FILES:
        shutil.copy(CARRIED / name, folder / name)
    return folder


def lisa_tensors() -> dict[str, Tensor]:
    """A LISA: the language half of the rule, its own text_hidden_fcs, a few of SAM 1's names, rotary tables."""
    language = ("model.embed_tokens", "model.layers", "model.norm", "lm_head", "model.mm_projector")
    tensors = {name: each for name, each in rule_tensors().items() if name.startswith(language)}
    for name in ("0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"):
        full = f"model.text_hidden_fcs.{name}"
        tensors[full] = torch.full_like(rule_tensors()[full], 7.0)
    for name in ("image_encoder.blocks.0.norm1.weight", "image_encoder.neck.0.weight"):
        tensors[f"{SAM2}{name}"] = torch.zeros(8)
    tensors[f"{SAM2}prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 8)
    tensors[f"{SAM2}mask_decoder.iou_token.weight"] = torch.zeros(1, 8)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    return tensors


def write_lisa(folder: Path) -> Path:
    """LISA-7B-v1 in small."""
    folder.mkdir(parents=True)
    write_shards(lisa_tensors(), folder)
    (folder / "config.json").write_text(json.dumps(language_config()))
    for name in TOKENIZER_FILES:
        shutil.copy(CARRIED / name, folder / name)
    return folder


def write_clip(folder: Path, whole: bool = False) -> Path:
    """The vision part of a CLIP; `whole` adds names of its text half, as openai/clip-vit-large-patch14 has them."""
    folder.mkdir(parents=True)
    tensors = {name.removeprefix(TOWER): each for name, each in rule_tensors().items() if name.startswith(TOWER)}
    sizes = NANO.vision
    config: dict[str, object] = {
        "hidden_act": "quick_gelu",
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
    }
    if whole:
        config = {"model_type": "clip", "vision_config": config, "projection_dim": 16}
        tensors["text_model.embeddings.token_embedding.weight"] = torch.zeros(4, 4)
        tensors["text_projection.weight"] = tensors["visual_projection.weight"] = torch.zeros(4, 4)
        tensors["logit_scale"] = torch.tensor(1.0)
        tensors["vision_model.embeddings.position_ids"] = torch.arange(257).unsqueeze(0)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"image_mean": list(sizes.mean), "image_std": list(sizes.std)}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def sam2_tensors() -> dict[str, Tensor]:
    """SAM 2's parameters by the names of sam2_hiera_*.pt."""
    return {name.removeprefix(SAM2): each for name, each in rule_tensors().items() if name.startswith(SAM2)}


def write_sam2(file: Path, newer: bool = False) -> Path:
    """sam2_hiera_*.pt; `newer` adds what sam2.1_hiera_*.pt has more."""
    tensors = sam2_tensors()
    if newer:
        tensors |= {
            "no_obj_embed_spatial": torch.ones(1, 64),
            "obj_ptr_tpos_proj.weight": torch.ones(64, 256),
            "obj_ptr_tpos_proj.bias": torch.ones(64),
        }
    torch.save({"model": tensors}, file)
    return file
