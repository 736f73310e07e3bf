"""The machines of a job meet, time an all-reduce, and compare their clocks and versions."""

import time
from dataclasses import dataclass
from datetime import timedelta
from zlib import crc32

import torch
import torch.distributed as dist

from glus.common.errors import LaunchError
from glus.launch.ranks.nodes import Nodes
from glus.launch.ranks.rendezvous import job_store
from glus.training.tracking.code_version import code_version


@dataclass(frozen=True)
class Meeting:
    """Seconds of an all-reduce, this clock's difference from the first machine's, and whether the code is the same."""

    seconds: float
    skew: float
    same_code: bool
    backend: str


def meet(nodes: Nodes, size: int, wait: float) -> Meeting:
    """Join the other machines and all-reduce `size` bytes.

    Raises LaunchError where they do not come within `wait` seconds, or cannot reach each other.
    """
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    timeout = timedelta(seconds=wait)
    try:
        store = job_store(nodes, wait)
        dist.init_process_group(backend, store=store, rank=nodes.number, world_size=nodes.count, timeout=timeout)
        try:
            seconds = _timed(torch.ones(max(1, size // 4), device=device))
            skew = _skew(nodes, device)
            same = _same_code(device)
        finally:
            dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise LaunchError(
            f"the {nodes.count} machines did not meet at {nodes.endpoint} within {wait:.0f} s ({reason}): see which of "
            "them says nothing else, at the firewall between them, and at NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME"
        ) from error
    return Meeting(seconds, skew, same, backend)


def _timed(tensor: torch.Tensor) -> float:
    dist.all_reduce(tensor)  # the first one makes the connections
    _finish(tensor)
    dist.barrier()
    began = time.perf_counter()
    dist.all_reduce(tensor)
    _finish(tensor)
    return time.perf_counter() - began


def _finish(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _skew(nodes: Nodes, device: torch.device) -> float:
    """Of some tries the least difference: what the network adds is never less than nothing."""
    found = []
    for _ in range(3):
        dist.barrier()
        mine = torch.tensor([time.time()], dtype=torch.float64, device=device)
        clocks = [torch.empty_like(mine) for _ in range(nodes.count)]
        dist.all_gather(clocks, mine)
        found.append(abs(float(clocks[nodes.number]) - float(clocks[0])))
    return min(found)


def _same_code(device: torch.device) -> bool:
    mine = torch.tensor([crc32(repr(sorted(code_version().items())).encode())], device=device)
    first = mine.clone()
    dist.broadcast(first, 0)
    return bool((mine == first).all())
