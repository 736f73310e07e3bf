"""The same few global batches again and again: a model and its losses are well if it learns these by heart."""

from collections.abc import Sequence

from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig, Slot
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.training.run_config import RunConfig


class RepeatedPlan(SamplePlan):
    """A plan whose step s holds what step s % `steps` would."""

    def __init__(self, splits: Sequence[ShardedSplit], config: SamplingConfig, seed: int, slots: int, steps: int):
        super().__init__(splits, config, seed, slots)
        self._steps = steps

    def slot(self, step: int, number: int) -> Slot:
        """Slot `number` of the step that is shown in place of `step`."""
        return super().slot(step % self._steps, number)


def plan_of(config: RunConfig, splits: Sequence[ShardedSplit]) -> SamplePlan:
    """The run's plan: of all its steps, or of the first `overfit` ones. Raises DataError."""
    if config.overfit:
        return RepeatedPlan(splits, config.sampling, config.seed, config.global_batch_size, config.overfit)
    return SamplePlan(splits, config.sampling, config.seed, config.global_batch_size)
