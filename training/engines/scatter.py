"""A model from rank 0 to all ranks, one parameter at a time; first whether they all built the same one."""

import ctypes
import hashlib
import json
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from glus.common.errors import TrainingError
from glus.model.released.late_values import LateValues
from glus.training.distributed import Rank

#: Bytes of parameters after which what was freed goes back to the system.
_TRIM_AFTER = 2**23


def check_same_model(model: nn.Module, rank: Rank) -> None:
    """Raises TrainingError on every rank where one has parameters or buffers of other names, shapes or ties.

    All ranks call it before anything is broadcast: unlike tensors end gloo, and NCCL waits for ever.
    """
    if rank.ranks == 1:
        return
    listing = _listing(model)
    digests = rank.gather_texts(hashlib.sha256(listing.encode()).hexdigest())
    other = next((number for number, digest in enumerate(digests) if digest != digests[0]), None)
    if other is None:
        return
    listings = rank.gather_texts(listing)
    first, second = json.loads(listings[0]), json.loads(listings[other])
    [there, here] = next(pair for pair in zip_longest(first, second) if pair[0] != pair[1])
    raise TrainingError(
        f"rank {other} built another model than rank 0: {len(second)} tensors and {len(first)}; the first that differs "
        f"is {_words(here)} where rank 0 has {_words(there)}: give all machines the same code, libraries and config"
    )


def _listing(model: nn.Module) -> str:
    """List parameters (names, several where tied; shape; whether trained) and buffers (name, shape) as JSON."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    rows: list[Any] = [[" = ".join(each), list(own.shape), own.requires_grad] for own, each in names.items()]
    rows += [[name, list(buffer.shape), False] for name, buffer in model.named_buffers()]
    return json.dumps(rows)


def _words(row: Any) -> str:
    return f"{row[0]} {row[1]}{'' if row[2] else ', frozen'}" if row else "nothing"


def scatter(
    model: nn.Module,
    rank: Rank,
    dtype: torch.dtype,
    take: Callable[[nn.Parameter], None],
    values: LateValues | None = None,
) -> None:
    """Move a model to this rank's device, its floating parameters in `dtype`, and give each to `take`, once.

    Rank 0 has each parameter in the memory of its CPU, or on the meta device and makes it by `values`; the others may
    have it on the meta device. `take` gets rank 0's weights to the others (`broadcast`, or ZeRO-3's partitions). Held
    at any time: what `take` keeps, one parameter, and what rank 0 had in memory and is still to come. Tied parameters
    stay tied. All ranks call it. Raises KeyError where nothing makes a parameter of rank 0.
    """
    if rank.rank == 0:
        values = values or LateValues()
    made: dict[nn.Parameter, nn.Parameter] = {}
    freed = 0
    for module in model.modules():
        for name, given in module._parameters.items():
            if given is None:
                continue
            if given not in made:
                kind = dtype if given.is_floating_point() else given.dtype
                freed += given.numel() * kind.itemsize
                made[given] = parameter = _on_device(given, kind, rank.device, values)
                take(parameter)
            module._parameters[name] = made[given]
            if freed >= _TRIM_AFTER:
                _trim_heap()
                freed = 0
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer = buffer.to(rank.device).contiguous()
                broadcast(buffer)


def broadcast(tensor: Tensor) -> None:
    """Rank 0's values on every rank, in place."""
    torch.distributed.broadcast(tensor.data, 0)


def _trim_heap() -> None:
    """Return freed memory to the system: glibc keeps it, between the parts that stay, as much as the model again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _on_device(
    given: nn.Parameter, dtype: torch.dtype, device: torch.device, values: LateValues | None
) -> nn.Parameter:
    if given.is_meta:
        made = values.take(given).to(device, dtype) if values else torch.empty(given.shape, dtype=dtype, device=device)
        return nn.Parameter(made, requires_grad=given.requires_grad)
    given.data = given.data.to(device, dtype).contiguous()
    return given
