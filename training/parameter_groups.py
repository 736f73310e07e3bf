"""Trained parameters by their factor on the learning rate."""

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from glus.training.run_config import OptimizerConfig


def parameter_groups(model: nn.Module, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups as torch's optimisers take them, each with its "factor": of the first pattern that matches, else 1."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factors = (factor for pattern, factor in optimizer.factors.items() if fnmatchcase(name, pattern))
            groups.setdefault(next(factors, 1.0), []).append(parameter)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]
