"""Seeds and random generators by key: the same numbers on any machine, in any order.

A key is a tuple of integers such as (seed, step, slot). Different keys give independent draws; zeros at the end of
a key do not count.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def seed_of(*key: int) -> int:
    """Return a seed of 64 bits."""
    import numpy as np

    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def numpy_generator(*key: int) -> "np.random.Generator":
    """Return NumPy's Philox generator."""
    import numpy as np

    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def torch_generator(*key: int) -> "torch.Generator":
    """Return torch's generator on the CPU."""
    import torch

    # torch takes seeds of 63 bits.
    return torch.Generator().manual_seed(seed_of(*key) >> 1)
