"""Optional parts of a GPU machine that `glus doctor` tries."""

import importlib.util

import pytest
import torch

from glus.common.errors import LaunchError
from glus.launch.slurm.doctor_gpu import flash_attention

HAS_FLASH = importlib.util.find_spec("flash_attn") is not None


@pytest.mark.skipif(HAS_FLASH, reason="flash-attn is installed here")
def test_flash_attention_that_is_not_there_is_said_with_its_command() -> None:
    with pytest.raises(LaunchError, match="not installed.*: run `make env-gpu`, or set model.language.attention=sdpa"):
        flash_attention(None)


@pytest.mark.skipif(not (HAS_FLASH and torch.cuda.is_available()), reason="needs flash-attn and a GPU")
def test_flash_attention_computes_what_torch_does() -> None:
    assert "of torch's attention" in flash_attention(torch.device("cuda", 0))
