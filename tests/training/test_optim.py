"""The learning rate over a run, and factors on it by parameter name."""

import pytest
import torch

from glus.common.errors import TrainingError
from glus.training.optim import learning_rate, parameter_groups
from glus.training.run_config import OptimizerConfig


def test_it_rises_in_equal_parts_and_falls_in_equal_parts() -> None:
    rates = [learning_rate(step, 10, 1.0, 4) for step in range(10)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:] == pytest.approx([1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, 10, 3e-4, 0) == 3e-4


def test_it_is_nothing_at_the_end_and_after_it() -> None:
    assert [learning_rate(step, 10, 1.0, 2) for step in (10, 11, 1000)] == [0.0, 0.0, 0.0]


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    assert learning_rate(2, 3, 1.0, 100) == pytest.approx(3 / 101)


def test_it_stays_at_the_peak_until_the_fall_begins() -> None:
    rates = [learning_rate(step, 10, 1.0, 2, decay=4) for step in range(11)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert [learning_rate(step, 10, 1.0, 2, decay=0) for step in (5, 9)] == [1.0, 1.0]
    longer_than_the_run = [learning_rate(step, 10, 1.0, 2, decay=99) for step in range(10)]
    assert longer_than_the_run == [learning_rate(step, 10, 1.0, 2) for step in range(10)]
    with pytest.raises(TrainingError, match="decay_steps=-1"):
        OptimizerConfig(decay_steps=-1)


def test_the_first_pattern_that_matches_sets_the_factor_and_frozen_parameters_are_left_out() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("eyes", "words", "rest")})
    model["rest"].bias.requires_grad_(False)
    groups = parameter_groups(model, OptimizerConfig(factors={"words.bias": 3.0, "words.*": 0.1}))
    found = {group["factor"]: group["params"] for group in groups}
    assert {factor: len(parameters) for factor, parameters in found.items()} == {1.0: 3, 3.0: 1, 0.1: 1}
    assert found[3.0][0] is model["words"].bias
    assert found[0.1][0] is model["words"].weight
