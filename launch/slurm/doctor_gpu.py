"""What `glus doctor` tries of the optional parts of a GPU machine: flash-attn."""

from importlib import import_module, metadata

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from glus.common.errors import LaunchError, first_line

#: Largest difference of two bf16 attentions over numbers of size 1 (8 bits; both add up in float32).
_ALIKE = 0.02
_REMEDY = "run `make env-gpu`, or set model.language.attention=sdpa"


def flash_attention(device: torch.device | None) -> str:
    """Version of flash-attn, and its difference from torch's attention on a GPU; without one it is not run.

    Raises LaunchError where it is not installed, does not run, or computes something else.
    """
    try:
        version = metadata.version("flash-attn")
    except metadata.PackageNotFoundError:
        raise LaunchError(f"not installed, and the config asks for it: {_REMEDY}") from None
    if device is None:
        return f"{version}, not run: there is no GPU"
    try:
        difference = _difference(device)
    except (ImportError, RuntimeError) as error:  # built for another torch, or for no GPU of this kind
        reason = first_line(error).replace(": ", ", ")
        raise LaunchError(f"{version} does not run on this GPU ({reason}): {_REMEDY}") from error
    if not difference <= _ALIKE:
        raise LaunchError(f"{version} differs from torch's attention by {difference:.3f}: {_REMEDY}")
    return f"{version}, within {difference:.4f} of torch's attention"


def _difference(device: torch.device) -> float:
    """Largest difference of causal attention from torch's: 2 rows, 128 positions, 4 heads of 64, in bf16."""
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 128, 4, 64, generator=random).to(device, torch.bfloat16) for _ in range(3))
    theirs: Tensor = import_module("flash_attn").flash_attn_func(query, key, value, causal=True)
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    ours = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    return float((theirs.float() - ours.float()).abs().max())
