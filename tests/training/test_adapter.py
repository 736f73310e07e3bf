"""A checkpoint's LoRA in peft's own layout: peft adds it to a Llama of transformers, which then computes the same."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from glus.model.model_config import LoraConfig
from glus.model.trainable import add_lora
from glus.training.checkpoints.adapter import ADAPTER, write_adapter
from tests.model.tiny import tiny_config, tiny_model


@torch.no_grad()
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "down_proj")])
def test_peft_reads_the_adapter_and_the_language_model_computes_the_same(
    tmp_path: Path, targets: tuple[str, ...]
) -> None:
    config = LoraConfig(rank=3, alpha=6, dropout=0.1, targets=targets)
    ours = tiny_model(tiny_config())
    theirs = LlamaForCausalLM(ours.language.llama.config).eval()
    theirs.load_state_dict(ours.language.llama.state_dict())
    ids = torch.tensor([[1, 5, 7, 30]])
    plain = theirs(ids).logits
    add_lora(ours, config)
    for name, parameter in ours.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    write_adapter(tmp_path, ours.state_dict(), config, "lab/llama")
    adapted = peft.PeftModel.from_pretrained(theirs, str(tmp_path / ADAPTER)).eval()
    wanted = ours.eval().language.llama(ids).logits
    torch.testing.assert_close(adapted(ids).logits, wanted, rtol=1e-5, atol=1e-5)
    assert (wanted - plain).abs().max() > 0.01
    settings = adapted.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.base_model_name_or_path) == (3, 6, "lab/llama")
    written = load_file(tmp_path / ADAPTER / "adapter_model.safetensors")
    assert len(written) == sum(".lora_" in name for name, _ in ours.named_parameters())


def test_a_model_without_lora_has_no_adapter(tmp_path: Path) -> None:
    write_adapter(tmp_path, tiny_model(tiny_config()).state_dict(), LoraConfig(rank=0), "")
    assert not list(tmp_path.iterdir())
