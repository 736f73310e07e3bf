"""Python calls that must not reach C++ as they are: devices by name, and attention, whose kernel CUDA chooses."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from glus.training.trace.pretended_cuda import META, PretendedTensor

_TAKES_DEVICE = (torch.Tensor.to, torch.nn.Module.to)
#: Widest head of the flash kernel.
_FLASH_WIDTH = 256


class CudaCalls(TorchFunctionMode):
    """Rewrites calls for the pretended device; `attention` counts the kernels taken."""

    def __init__(self) -> None:
        super().__init__()
        self.attention: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keys = dict(kwargs or {})
        given: dict[str, Any]
        if function is functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
            if isinstance(args[0] if args else keys["query"], PretendedTensor):
                return self._attended(**(given | keys))
        if function is torch.Tensor.tolist and isinstance(args[0], PretendedTensor):
            return args[0].to("cpu").tolist()
        device = keys.get("device")
        if device is not None and torch.device(device).type == "cuda":
            if function in (torch.tensor, torch.as_tensor):
                return function(*args, **(keys | {"device": "cpu"})).to(META)
            keys["device"] = META
        if function is torch.Tensor.new_tensor and isinstance(args[0], PretendedTensor):
            given = dict(keys)
            given.setdefault("dtype", args[0].dtype)
            return torch.tensor(*args[1:], **given).to(META)
        if function in _TAKES_DEVICE:
            args = tuple(META if _names_cuda(each) else each for each in args)
        return function(*args, **keys)

    def _attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The flash kernel in half precision without a mask, else the memory-efficient one (simplified from torch)."""
        width = query.shape[-1]
        scale = width**-0.5 if scale is None else scale
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(groups, -3) for each in (key, value))
        flash = query.dtype in (torch.bfloat16, torch.float16) and attn_mask is None and width <= _FLASH_WIDTH
        self.attention["flash" if flash else "memory-efficient"] += 1
        if flash:
            padded = [functional.pad(each, (0, -width % 8)) for each in (query, key, value)] if width % 8 else None
            query, key, value = padded or (query, key, value)
            out = torch.ops.aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, False, scale=scale
            )[0]
            return out[..., :width]
        bias = attn_mask
        if bias is not None:
            if bias.dtype == torch.bool:
                bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill(~bias, float("-inf"))
            bias = bias.expand(*query.shape[:-1], key.shape[-2])
        kept = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
        return torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, kept, dropout_p, is_causal, scale=scale
        )[0]


def run_backward(loss: Tensor) -> None:
    """`loss.backward()` that leaves CudaCalls in force: torch takes a mode away while it runs that call's own code.

    Without it, attention that is computed again would not be seen.
    """
    engine: Any = torch.autograd.graph._engine_run_backward
    engine((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _names_cuda(value: Any) -> bool:
    return (isinstance(value, str) and value.startswith("cuda")) or (
        isinstance(value, torch.device) and value.type == "cuda"
    )


@contextmanager
def lifted_on_the_cpu() -> Iterator[None]:
    """Let `torch.tensor` make CPU tensors of numbers, which then move as any others."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
