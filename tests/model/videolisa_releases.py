"""VideoLISA's weights in the layouts in which the real ones are released, small, by the rule of its recording."""

import json
import shutil
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .releases import write_shards

CARRIED = Path(__file__).parents[1] / "data" / "parity_videolisa"
TOWER, SEGMENTER = "model.vision_tower.vision_tower.", "model.visual_model."
ALPHA = 16


@cache
def rule_tensors() -> Mapping[str, Tensor]:
    """Every parameter of the recorded model by its reference name, float16, LoRA not merged."""
    shapes = json.loads((CARRIED / "parameters.json").read_text("utf-8"))
    return {name: _by_rule(name, shape) for name, shape in shapes.items()}


def _by_rule(name: str, shape: list[int]) -> Tensor:
    key = name.removeprefix(TOWER)
    draw = np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))
    value = draw.standard_normal(shape, dtype=np.float32)
    if not key.endswith("positional_encoding_gaussian_matrix"):
        if len(shape) <= 1:
            value = 0.1 * value + (1 if key.endswith("weight") else 0)
        else:
            value = value * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(value.astype(np.float16))


def merged_tensors() -> dict[str, Tensor]:
    """The same with LoRA merged in float32, as merge_lora_weights_and_save_hf_model.py of the reference does."""
    given = dict(rule_tensors())
    tensors = {name: each for name, each in given.items() if ".lora_" not in name}
    for name in given:
        if ".lora_A." in name:
            base = name.replace(".lora_A.default", "")
            down, up = given[name].float(), given[name.replace(".lora_A.", ".lora_B.")].float()
            tensors[base] = tensors[base].float() + ALPHA / down.shape[0] * (up @ down)
    return tensors


def of_peft(name: str) -> str:
    """A name as PEFT stores it (zero_to_fp32.py of a training run)."""
    adapted = "qkv_proj.weight" in name
    return "base_model.model." + (name.replace("qkv_proj.", "qkv_proj.base_layer.") if adapted else name)


def config_json(**changed: object) -> dict[str, object]:
    """config.json of the recorded model."""
    stored: dict[str, object] = json.loads((CARRIED / "config.json").read_text("utf-8"))
    return stored | changed


def write_videolisa(folder: Path, form: str = "bin", merged: bool = True, **config: object) -> Path:
    """A VideoLISA checkpoint without vision tower: merged as released, or as it is trained, with PEFT's names."""
    folder.mkdir(parents=True)
    tensors = merged_tensors() if merged else {of_peft(name): each for name, each in rule_tensors().items()}
    write_shards({name: each for name, each in tensors.items() if TOWER not in name}, folder, form)
    (folder / "config.json").write_text(json.dumps(config_json(**config)))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, seg: bool = True) -> None:
    """The recorded tokenizer; without `seg` as Phi-3 is released."""
    for file in (CARRIED / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)
    if not seg:
        for name in ("added_tokens.json", "tokenizer_config.json"):
            stored = json.loads((folder / name).read_text("utf-8"))
            stored.pop("[SEG]", None)
            if "added_tokens_decoder" in stored:
                decoder = stored["added_tokens_decoder"]
                stored["added_tokens_decoder"] = {k: each for k, each in decoder.items() if each["content"] != "[SEG]"}
            (folder / name).write_text(json.dumps(stored))


def write_llava_phi(folder: Path, rows: int = 576) -> Path:
    """LLaVA-Phi-3-mini: language model and projector, a table with more rows than the tokenizer has tokens."""
    folder.mkdir(parents=True)
    language = ("model.embed_tokens", "model.layers", "model.norm", "lm_head", "model.mm_projector")
    tensors = {
        name: each for name, each in rule_tensors().items() if name.startswith(language) and ".lora_" not in name
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more = torch.full((rows - len(tensors[name]), tensors[name].shape[1]), 3.0, dtype=torch.float16)
        tensors[name] = torch.cat([tensors[name], more])
    write_shards(tensors, folder)
    (folder / "config.json").write_text(json.dumps(config_json(architectures=["LlavaPhiForCausalLM"], vocab_size=rows)))
    write_tokenizer(folder, seg=False)
    return folder


def write_sam1(file: Path) -> Path:
    """A sam_vit_*.pth: SAM 1's own names at the top."""
    own = {name.removeprefix(SEGMENTER): each for name, each in rule_tensors().items() if name.startswith(SEGMENTER)}
    torch.save(own, file)
    return file


def write_clip336(folder: Path) -> Path:
    """The recorded vision tower as a CLIP of its own."""
    shutil.copytree(CARRIED / "openai-clip-nano", folder)
    own = {name.removeprefix(TOWER): each for name, each in rule_tensors().items() if name.startswith(TOWER)}
    torch.save(own, folder / "pytorch_model.bin")
    return folder
