"""The LoRA of a checkpoint in peft's own layout: CHECKPOINT/adapter/, for programs that know peft and not GLUS.

`peft.PeftModel.from_pretrained(language_model, CHECKPOINT/adapter)` adds it to the language model alone. Token
embeddings and lm_head, where they are trained too, are not in it. Nothing here reads it back: a run, an evaluation and
an export take LoRA from the checkpoint's weights.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from glus.common.errors import TrainingError
from glus.common.files import give_usual_mode
from glus.model.model_config import LoraConfig
from glus.model.released.safetensors_file import save_tensors

ADAPTER = "adapter"
_OURS = re.compile(r"language\.llama\.(.+)\.(lora_[AB])\.default\.weight")


def write_adapter(path: Path, weights: Mapping[str, Tensor], config: LoraConfig, base: str) -> None:
    """Write PATH/adapter/{adapter_model.safetensors, adapter_config.json}; nothing for weights without LoRA.

    `base` names the language model that the run started from, "" where there is none. Raises TrainingError where the
    disk is full.
    """
    found = {name: matched for name in weights if (matched := _OURS.fullmatch(name))}
    if not found:
        return
    import peft

    folder = path / ADAPTER
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted({matched[1].rpartition(".")[2] for matched in found.values()}),
        bias="none",
        base_model_name_or_path=base or None,
        inference_mode=True,
    )
    tensors = {
        f"base_model.model.{matched[1]}.{matched[2]}.weight": weights[name].contiguous()
        for name, matched in found.items()
    }
    try:
        settings.save_pretrained(str(folder))
        for file in folder.iterdir():
            give_usual_mode(file)
        save_tensors(tensors, folder / "adapter_model.safetensors")
    except OSError as error:
        raise TrainingError(
            f"the adapter of the checkpoint {path.name} could not be written below {path.parent}: {error}; free some "
            "room"
        ) from error
