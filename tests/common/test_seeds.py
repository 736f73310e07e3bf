"""Keyed seeds: what was drawn yesterday is drawn tomorrow, or resumed runs see other samples."""

import numpy as np
import torch

from glus.common.seeds import numpy_generator, seed_of, torch_generator

#: Of the key (5, 7, 2), as every version of the project has drawn it.
SEED = 12151908989600622437


def test_a_key_gives_the_numbers_of_its_seed_sequence() -> None:
    sequence = np.random.SeedSequence([5, 7, 2])
    assert seed_of(5, 7, 2) == int(sequence.generate_state(1, np.uint64)[0]) == SEED
    expected = np.random.Generator(np.random.Philox(np.random.SeedSequence([5, 7, 2]))).random(3)
    assert numpy_generator(5, 7, 2).random(3).tolist() == expected.tolist()
    drawn = torch.randint(0, 1000, (4,), generator=torch.Generator().manual_seed(SEED >> 1))
    assert torch.equal(torch.randint(0, 1000, (4,), generator=torch_generator(5, 7, 2)), drawn)


def test_other_keys_give_other_numbers() -> None:
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 0, 1024)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
