"""Parameters in half precision, as DeepSpeed has them in training."""

from typing import Literal

import torch
from torch import nn


def set_precision(model: nn.Module, precision: Literal["bf16", "fp32"]) -> None:
    """Cast the parameters in place. Buffers stay float32, and what is computed from them is cast where it is used.

    They are SAM 2's positional encoding and Llama's rotary frequencies: angles, which 8 bits would turn by degrees.
    """
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
