"""Processor, memory and network of each node of a run, gathered over the ranks when metrics are recorded."""

import time

import psutil
import torch

from glus.training.devices import memory_taken
from glus.training.distributed import Rank

NAMES = ("cpu_percent", "memory_percent", "network_mib_per_second", "disk_mib_per_second", "gpu_memory_percent")


class NodeWatch:
    """Measures a node on its first rank, and each GPU on its own rank."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._when, self._moved = time.monotonic(), _moved()
        psutil.cpu_percent()  # the first call only starts the measuring

    def metrics(self) -> dict[str, float]:
        """{"system/node-0/cpu_percent": ...} of all nodes, since the last call. Every rank calls it."""
        gpu = memory_taken(self._rank.device)
        own = torch.tensor([float(self._rank.local == 0), *self._measured(), *gpu], dtype=torch.float64)
        gathered = [own]
        if self._rank.ranks > 1:
            own = own.to(self._rank.device)
            gathered = [torch.empty_like(own) for _ in range(self._rank.ranks)]
            torch.distributed.all_gather(gathered, own)
        nodes: list[list[float]] = []
        for each in gathered:
            first, *values, taken, total = each.tolist()
            if first or not nodes:
                nodes.append([*values, 0.0, 0.0])
            nodes[-1][-2] += taken  # ranks of one node follow each other
            nodes[-1][-1] += total
        nodes = [[*values, 100 * taken / total if total else -1.0] for *values, taken, total in nodes]
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
        return [psutil.cpu_percent(), psutil.virtual_memory().percent, network, disk]


def _moved() -> tuple[int, int]:
    """Bytes over the network, and to and from disks, since the machine began."""
    network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
    wire = network.bytes_sent + network.bytes_recv if network else 0
    return wire, disk.read_bytes + disk.write_bytes if disk else 0
