"""Processor, memory and network of each node of a run, gathered over the ranks when figures are recorded."""

import time

import psutil
import torch

from glus.training.distributed import Rank

NAMES = ("cpu_percent", "memory_percent", "network_mib_per_second", "disk_mib_per_second", "gpu_memory_percent")


class NodeWatch:
    """Every rank has one; the first rank of a node speaks for it."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._when, self._moved = time.monotonic(), _moved()
        psutil.cpu_percent()  # the first call only starts the measuring

    def figures(self) -> dict[str, float]:
        """{"system/node-0/cpu_percent": ...} of all nodes, since it was last asked. Every rank calls it."""
        own = torch.tensor([float(self._rank.local == 0), *self._measured()], dtype=torch.float64)
        told = [own]
        if self._rank.ranks > 1:
            own = own.to(self._rank.device)
            told = [torch.empty_like(own) for _ in range(self._rank.ranks)]
            torch.distributed.all_gather(told, own)
        nodes = [each[1:].tolist() for each in told if each[0]]
        return {
            f"system/node-{number}/{name}": value
            for number, values in enumerate(nodes)
            for name, value in zip(NAMES, values, strict=True)
            if value >= 0
        }

    def _measured(self) -> list[float]:
        now, moved = time.monotonic(), _moved()
        seconds = max(now - self._when, 1e-3)
        network, disk = ((after - before) / seconds / 2**20 for after, before in zip(moved, self._moved, strict=True))
        self._when, self._moved = now, moved
        return [psutil.cpu_percent(), psutil.virtual_memory().percent, network, disk, _gpu_memory()]


def _moved() -> tuple[int, int]:
    """Bytes over the network, and to and from disks, since the machine began."""
    network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
    wire = network.bytes_sent + network.bytes_recv if network else 0
    return wire, disk.read_bytes + disk.write_bytes if disk else 0


def _gpu_memory() -> float:
    """Percent of the memory of this node's GPUs that is taken; -1 without a GPU."""
    if not torch.cuda.is_available():
        return -1.0
    pairs = [torch.cuda.mem_get_info(number) for number in range(torch.cuda.device_count())]
    return 100.0 * sum(whole - free for free, whole in pairs) / sum(whole for _, whole in pairs)
