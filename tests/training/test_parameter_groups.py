"""Factors on the learning rate by parameter name."""

import torch

from glus.training.parameter_groups import parameter_groups
from glus.training.run_config import OptimizerConfig


def test_the_first_pattern_that_matches_sets_the_factor_and_frozen_parameters_are_left_out() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("eyes", "words", "rest")})
    model["rest"].bias.requires_grad_(False)
    groups = parameter_groups(model, OptimizerConfig(factors={"words.bias": 3.0, "words.*": 0.1}))
    found = {group["factor"]: group["params"] for group in groups}
    assert {factor: len(parameters) for factor, parameters in found.items()} == {1.0: 3, 3.0: 1, 0.1: 1}
    assert found[3.0][0] is model["words"].bias
    assert found[0.1][0] is model["words"].weight
