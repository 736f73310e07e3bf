"""Memory for frames that is used again once a batch is gone.

Fresh memory comes from the system page by page, each cleared first: for a sample of eight frames that costs a fifth of
the time that decoding them takes (docs/log.md). With a GPU the memory is pinned, from torch's own cache.
"""

import math
from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

#: Sizes are rounded up to these, so that frames of nearly equal size share memory.
GRAIN = 2**20
#: Blocks of one size that are kept while nobody uses them.
KEPT_BLOCKS = 16


class Buffers:
    """`empty(shape)` gives frames their memory, which comes back here when the array and its views are gone."""

    def __init__(self) -> None:
        # Appending to and popping from a deque is atomic: threads share it without a lock.
        self._free: dict[int, deque[NDArray[np.uint8]]] = defaultdict(lambda: deque(maxlen=KEPT_BLOCKS))
        self._pinned = torch.cuda.is_available()

    def empty(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 `shape`, of whatever the memory held before."""
        size = math.prod(shape)
        if self._pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy().reshape(shape)
        grains = -(-size // GRAIN)
        free = self._free[grains]
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(grains * GRAIN, np.uint8)
        return np.asarray(_Lease(block, free))[:size].reshape(shape)


class _Lease:
    """A block in use. NumPy keeps it as the base of every view; when the last is gone, the block is free again."""

    def __init__(self, block: NDArray[np.uint8], free: deque[NDArray[np.uint8]]) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._block)
