"""`glus export CHECKPOINT --out DIR`: a checkpoint of ours in the released layout, LoRA merged."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from glus.common.atomic import disk_fault
from glus.common.errors import LaunchError
from glus.common.terminal import plain
from glus.data_pipeline.batches.phi3_tokens import is_phi3
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.batches.vocabulary import SENTENCEPIECE
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.launch.commands.model_card import CARD, Trained, evaluation_of, write_card
from glus.model.methods import AnyModel
from glus.model.model_config import LoraConfig
from glus.model.released.release_files import read_json
from glus.model.released.release_methods import MODEL_CONFIG, RELEASED_METHODS, check_is_released
from glus.model.released.release_sizes import released_config
from glus.model.released.release_sums import write_sums
from glus.model.released.write_release import (
    Format,
    Written,
    dtype_name,
    merge_lora,
    released_tensors,
    write_json,
    write_shards,
    write_tower,
)
from glus.training.build import build_from_checkpoint
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.integrity import check_model_files, without_digests
from glus.training.release_info import VISION_TOWER, model_file

#: Of one file of weights: above what any file system takes.
MOST_GIGABYTES = 1_000_000

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ExportConfig:
    """Which checkpoint, where to, and in which form."""

    checkpoint: Path
    """A run folder (its latest checkpoint) or one checkpoint folder."""
    out: Path
    """Folder to make; it must not be there yet."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights; float32 loses nothing, the others are half as large. The segmenter
    and text_hidden_fcs are always written in float32, as GLUS is released."""
    form: Literal["bin", "safetensors"] = "bin"
    """bin is what the reference's transformers 4.31 writes and reads; safetensors is read by it too."""
    shard_gigabytes: float = 10.0
    """Largest size of one file of weights."""
    licence: str = "other"
    """Of the weights, for the model card: an id of the Hugging Face hub (apache-2.0, llama2, cc-by-nc-4.0, ...). They
    inherit the terms of the models and datasets that they were trained from."""
    evaluation: Path | None = None
    """OUT of a `glus evaluate` of this checkpoint: its metrics go into the model card."""


def export(config: ExportConfig) -> None:
    """Write the checkpoint as a release of its method. Raises TrainingError, ModelError, DataError or LaunchError."""
    if config.out.exists():
        raise LaunchError(f"{config.out} is there already: name a new folder in `out`, or remove it")
    if not 0 < config.shard_gigabytes <= MOST_GIGABYTES:
        raise LaunchError(
            f"shard_gigabytes={config.shard_gigabytes:g}: give more than 0 and at most {MOST_GIGABYTES:,}"
        )
    folder = checkpoint.resolve(config.checkpoint)
    for line in without_digests(folder):
        print(plain(line))
    check_model_files(folder, weights=False)  # before the config is read; the weights, when it is known to be needed
    check_is_released(checkpoint.read_run_config(folder).model.method)
    check_model_files(folder)
    evaluation = evaluation_of(config.evaluation, folder) if config.evaluation else None
    model, tokenizer, run = build_from_checkpoint(folder)
    merged = merge_lora(model)
    aside = config.out.with_name(f".{config.out.name}.writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        shard_bytes = int(config.shard_gigabytes * 1e9)
        written = write_release(model, tokenizer, run.sampling, aside, DTYPES[config.dtype], config.form, shard_bytes)
        trained = Trained(folder, run, checkpoint.read_state(folder))
        write_card(aside, config.out.name, trained, config.dtype, config.licence, evaluation)
        os.replace(aside, config.out)
    except Exception as error:
        fault = disk_fault(error) or (isinstance(error, OSError) and str(error))
        if not fault:
            raise
        raise LaunchError(f"{config.out} cannot be written ({fault}); nothing half-written was left") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"merged {merged} LoRA layers; {written.size / 1e9:.2f} GB of weights, the language model in {config.dtype}")
    for line in written.lost():
        print(plain(f"WARNING: {line}"))
    title = RELEASED_METHODS[model.config.method].title
    print(plain(f"written: {config.out} (its {VISION_TOWER}/ is the CLIP tower, which {title} is released without)"))
    print(plain(f"its {CARD} is the model card; to share it: hf upload ORG/{config.out.name} {config.out} ."))


def write_release(
    model: AnyModel,
    tokenizer: Tokenizer,
    sampling: SamplingConfig,
    folder: Path,
    dtype: torch.dtype,
    form: Format,
    shard_bytes: int,
) -> Written:
    """Fill `folder` with a merged model, its tokenizer, how it is asked, and digests of all files.

    Returns the bytes of its weights without the tower's, and what became 0. Raises OSError, or ModelError for a weight
    that `dtype` cannot hold.
    """
    sizes = replace(model.config, lora=LoraConfig(rank=0), tokenizer="")
    written = write_shards(released_tensors(model), folder, dtype, form, shard_bytes)
    special = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    tower_name = RELEASED_METHODS[sizes.method].tower
    content = released_config(sizes, tokenizer.vocab_size, dtype_name(dtype), special, tower_name)
    write_json(folder / "config.json", content)
    write_json(folder / MODEL_CONFIG, model_file(sizes, sampling))
    tower = write_tower(model, folder / VISION_TOWER, dtype, form, shard_bytes)
    _write_tokenizer(tokenizer, folder)
    write_sums(folder)
    # Its names are CLIP's own.
    of_tower = {f"{VISION_TOWER}/ {name}": lost for name, lost in tower.underflows.items()}
    return written + Written(0, of_tower)


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    held = folder / "tokenizer"
    checkpoint.copy_tokenizer(tokenizer.path, held)
    for file in held.iterdir():
        os.replace(file, folder / file.name)
    held.rmdir()
    write_json(folder / "added_tokens.json", tokenizer.added)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        _describe_added(tokenizer, settings)
    elif (folder / SENTENCEPIECE).is_file() and not is_phi3(tokenizer.added):
        write_json(settings, _LLAMA_SETTINGS)


def _describe_added(tokenizer: Tokenizer, settings: Path) -> None:
    """Name tokens that were added here in `added_tokens_decoder`: transformers then reads no added_tokens.json."""
    content = read_json(settings)
    decoder = content.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return
    for token, token_id in tokenizer.added.items():
        flags = {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        decoder.setdefault(str(token_id), flags | {"special": False})
    write_json(settings, content)


def _added_token(content: str) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


#: tokenizer_config.json of the released GLUS.
_LLAMA_SETTINGS: dict[str, object] = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": _added_token("<s>"),
    "eos_token": _added_token("</s>"),
    "unk_token": _added_token("<unk>"),
    "pad_token": None,
    "clean_up_tokenization_spaces": False,
    "legacy": True,
    "model_max_length": 512,
    "padding_side": "right",
    "sp_model_kwargs": {},
    "use_fast": False,
}
