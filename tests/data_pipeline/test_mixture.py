"""Weights of splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glus.data_pipeline.datasets.table import check_split, holds_images
from glus.data_pipeline.sampling.mixture import BLOCK, NAMED, Mixture, expanded
from glus.data_pipeline.sampling.sample_plan import SamplingConfig

#: Of GLUS-A: MeViS, Refer-YouTube-VOS, Ref-DAVIS17, ReVOS, LV-VIS.
GLUS_A = (40, 150, 4, 30, 30)


def draws(weights, seed, steps, slots, independent=False) -> np.ndarray:
    mixture, random = Mixture(weights, seed), np.random.Generator(np.random.Philox(key=seed))
    return np.array(
        [mixture.draw(step, slot, random.random(), independent) for step in range(steps) for slot in range(slots)]
    )


def test_each_weight_of_glus_a_holds_within_1_percent_of_itself_over_100_000_draws():
    found = np.bincount(draws(GLUS_A, 0, 5000, 20), minlength=5)
    wanted = np.array(GLUS_A) / sum(GLUS_A) * 100_000
    assert np.abs(found / wanted - 1).max() < 0.01


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=2, max_size=5).filter(any), st.integers(0, 2**32))
def test_within_a_block_of_steps_a_slots_counts_are_exact_but_for_one(weights, seed):
    mixture, random = Mixture(weights, seed), np.random.Generator(np.random.Philox(key=seed))
    found = np.bincount([mixture.draw(step, 7, random.random()) for step in range(BLOCK)], minlength=len(weights))
    assert np.abs(found - np.array(weights) / sum(weights) * BLOCK).max() < 2


def test_neighbours_do_not_follow_each_other():
    found = draws((1, 1), 1, 600, 4)
    table = found.reshape(600, 4)
    for one, other in ((table[:-1, 0], table[1:, 0]), (table[:, 0], table[:, 1])):
        assert abs(np.mean(one == other) - 0.5) < 0.07


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 3.0), (0.0, 0.1)])
def test_weights_of_zero_are_never_drawn_even_at_the_ends(weights):
    mixture = Mixture(weights, 0)
    wanted = int(weights[1] > 0)
    for within in (0.0, 0.5, 1 - 2**-53):
        assert {mixture.draw(step, 0, within) for step in range(BLOCK)} == {wanted}
        assert mixture.draw(0, 0, within, independent=True) == wanted


def test_videolisa_draws_fifteen_images_in_thirty_two_samples():
    weights = expanded({"videolisa": 1})
    images = [name for name in weights if holds_images(name.split("/")[0])]
    assert sum(weights.values()) == 32 and sum(weights[name] for name in images) == 15
    assert weights["ade20k/train"] == 2 and weights["refcoco/train"] == 1 and weights["mevis/train"] == 6


def test_lisa_draws_nine_to_three_to_one():
    weights = expanded({"lisa": 2})
    assert weights["coco_stuff/train"] == 2 * 9 / 4 and weights["refcocog/train"] == 2 * 3 / 4
    assert weights["reason_seg/train"] == 2 and len(weights) == 9


def test_a_named_mixture_joins_splits_next_to_it():
    config = SamplingConfig(mixture={"videolisa": 0.5, "mevis/train": 1, "nonsense": 1})
    assert config.mixture["mevis/train"] == 4 and config.mixture["nonsense"] == 1
    assert config.mixture == SamplingConfig(mixture=config.mixture).mixture


def test_every_split_of_a_named_mixture_is_one_that_prepare_knows():
    for name in NAMED:
        for split in expanded({name: 1}):
            check_split(*split.split("/"))
