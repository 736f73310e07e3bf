"""The learning rate as a pure function of the step."""


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear from 0 to `peak` over `warmup` steps, then linear to 0 at `steps` (DeepSpeed's WarmupDecayLR, linear).

    `step` counts from 0. With `warmup` of 0 the first step already has the peak.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * max(steps - step, 0) / max(steps - warmup, 1)
