"""The optimizer's parameter groups, and the learning rate as a pure function of the step."""

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


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int | None = None) -> float:
    """Linear from 0 to `peak` over `warmup` steps, then linear to 0 at `steps` (DeepSpeed's WarmupDecayLR, linear).

    `step` counts from 0. With `warmup` of 0 the first step already has the peak. `decay`: the steps of the fall, at the
    end; between warm-up and fall the rate stays at the peak. None falls from the end of the warm-up.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    falls = steps - warmup if decay is None else min(decay, steps - warmup)
    return peak * min(max(steps - step, 0) / max(falls, 1), 1.0)
