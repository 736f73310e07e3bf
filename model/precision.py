"""Parameters in half precision, as DeepSpeed has them in training; values that no precision may lose."""

from typing import Literal

import torch
from torch import Tensor, nn

#: Above it float32 values become infinite in bf16; below it both hold them.
LARGEST = torch.finfo(torch.bfloat16).max
_UNQUANTISED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def all_finite(tensor: Tensor) -> bool:
    """Return whether there is neither NaN nor infinity in a tensor, in one pass and without a copy."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    least, most = tensor.aminmax()  # NaN wins in both
    return bool(torch.isfinite(least) & torch.isfinite(most))


def why_unusable(tensor: Tensor) -> str:
    """Return why stored numbers are no weights, to follow their name in a message; "" where they are.

    They are floating-point numbers (not quantised ones, whose scale is elsewhere), finite in float32 and in bf16 too.
    """
    if tensor.dtype not in _UNQUANTISED:
        name = str(tensor.dtype).removeprefix("torch.")
        return f"holds {name} numbers (quantised?): weights are read as float32, bfloat16 or float16"
    if tensor.numel():
        least, most = (float(each) for each in tensor.aminmax())
        if not (-LARGEST <= least and most <= LARGEST):  # false for NaN
            return f"holds NaN, infinite values or some above {LARGEST:g}: nothing can be predicted with it"
    return ""


def set_precision(model: nn.Module, precision: Literal["bf16", "fp32"]) -> None:
    """Cast the parameters in place. Buffers stay float32, and what is computed from them is cast where it is used.

    They are SAM 2's positional encoding and Llama's rotary frequencies: angles, which 8 bits would turn by degrees.
    """
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
