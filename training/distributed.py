"""Ranks: number, world size and device, from the environment that torchrun or SLURM sets; reductions over ranks."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

# torch exports them, but not explicitly.
from torch.distributed import DistError, FileStore, HashStore, Store  # type: ignore[attr-defined]

from glus.common.errors import TrainingError

#: Names the file in which the ranks of one machine meet; the launcher sets it (launch/ranks/rendezvous.py).
STORE = "GLUS_STORE"


@dataclass(frozen=True)
class Rank:
    """One process of a run. `local` counts on its machine and names its GPU; `on_cpu` leaves GPUs alone."""

    rank: int
    local: int
    ranks: int
    on_cpu: bool = False

    @property
    def device(self) -> torch.device:
        """This rank's GPU, or the CPU where there is none or it is set."""
        on_gpu = not self.on_cpu and torch.cuda.is_available()
        return torch.device("cuda", self.local) if on_gpu else torch.device("cpu")

    @property
    def backend(self) -> str:
        """NCCL between GPUs, gloo between CPUs."""
        return "nccl" if self.device.type == "cuda" else "gloo"

    @classmethod
    def from_environment(cls) -> "Rank":
        """Read RANK, LOCAL_RANK and WORLD_SIZE; alone where none is set. Raises TrainingError where some are."""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        values = [os.environ.get(name) for name in names]
        if all(value is None for value in values):
            return cls(0, 0, 1)
        try:
            rank, local, ranks = (int(value or "") for value in values)
            if not 0 <= local <= rank < ranks:
                raise ValueError
        except ValueError as error:
            found = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
            raise TrainingError(
                f"a rank needs RANK, LOCAL_RANK and WORLD_SIZE as numbers that fit; the environment has {found}: start "
                "with `glus train` alone, or under torchrun or srun"
            ) from error
        return cls(rank, local, ranks)

    def check_device(self, gpus: int) -> None:
        """Raises TrainingError where this machine has more ranks than its `gpus` GPUs; without GPU any number fits.

        Whatever started the ranks: where it says how many it started here, all of them find it out.
        """
        here = max(int(os.environ.get("LOCAL_WORLD_SIZE", "0")), self.local + 1)
        if 0 < gpus < here:
            raise TrainingError(
                f"{here} ranks on this machine, which has {gpus} GPUs: start one a GPU (--nproc-per-node={gpus} with "
                f"torchrun, ranks={gpus} without)"
            )

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        """Return each value's maximum over ranks. All ranks call it and get the same."""
        if not torch.distributed.is_initialized():
            return list(values)
        reduced = torch.tensor(list(values), dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(reduced, op=torch.distributed.ReduceOp.MAX)
        return [int(value) for value in reduced.tolist()]

    def sum_of(self, values: Sequence[float]) -> list[float]:
        """Return each value's sum over ranks, in float64. All ranks call it and get the same."""
        if not torch.distributed.is_initialized():
            return list(values)
        reduced = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(reduced, op=torch.distributed.ReduceOp.SUM)
        return [float(value) for value in reduced.tolist()]

    def gather_texts(self, text: str) -> list[str]:
        """Return each rank's text, in their order; all ranks call it. torch's all_gather_object would unpickle."""
        if not torch.distributed.is_initialized():
            return [text]
        own = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.ranks)]
        torch.distributed.all_gather(sizes, torch.tensor([own.numel()], device=self.device))
        largest = max(int(size) for size in sizes)
        padded = torch.zeros(largest, dtype=torch.uint8, device=self.device)
        padded[: own.numel()] = own
        found = [torch.empty_like(padded) for _ in range(self.ranks)]
        torch.distributed.all_gather(found, padded)
        return [each[: int(size)].cpu().numpy().tobytes().decode() for each, size in zip(found, sizes, strict=True)]


def join_ranks(rank: Rank) -> None:
    """Join the other ranks of this machine, through loopback and a private file, which no other host can reach.

    Ranks of several machines, and those of torchrun, meet at MASTER_ADDR: that is left to torch's "env://".
    """
    place = os.environ.get(STORE)
    if rank.ranks == 1 or place or os.environ.get("LOCAL_WORLD_SIZE") == str(rank.ranks):
        # Where ranks of other machines take part, the site's interface, or that of the host's name, is right.
        os.environ |= {"GLOO_SOCKET_IFNAME": _loopback(), "NCCL_SOCKET_IFNAME": _loopback()}
    if rank.ranks == 1:
        store: Store = HashStore()
    elif place:
        store = FileStore(place, rank.ranks)
    else:
        return
    timeout = torch.distributed.constants.default_pg_timeout
    store.set_timeout(timeout)
    torch.distributed.init_process_group(
        rank.backend, store=store, rank=rank.rank, world_size=rank.ranks, timeout=timeout
    )


def lost_ranks(error: BaseException) -> bool:
    """Whether an exception is one of communication between ranks, as where another rank was killed.

    gloo raises RuntimeError and names its source file; NCCL and torch's stores raise DistError.
    """
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def _loopback() -> str:
    """The interface that reaches this machine alone: lo on Linux, lo0 on macOS."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.family == socket.AF_INET and each.address == "127.0.0.1" for each in addresses):
            return name
    return "lo"
