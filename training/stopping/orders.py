"""What is to be done between two steps, agreed by all ranks: save, stop, or go on."""

from dataclasses import dataclass

from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import Cause, Due, StopFlag


@dataclass(frozen=True)
class Order:
    """Whether a checkpoint is to be written after this step, and why the run is to stop there (NONE: it goes on)."""

    save: bool
    stop: Cause


class Orders:
    """Asked after every step, by every rank: one all-reduce of two numbers."""

    def __init__(self, config: RunConfig, rank: Rank, stop: StopFlag) -> None:
        self._steps, self._rank, self._stop = config.steps, rank, stop
        self._due = Due(config.checkpoint_every, config.checkpoint_minutes)

    def after(self, done: int) -> Order:
        """What to do when `done` steps are done. The ranks' clocks differ: rank 0's counts."""
        late = self._rank.rank == 0 and self._due.by_minutes()
        cause, by_minutes = self._rank.most_of([self._stop.cause, late])
        stop = Cause(cause) if done < self._steps else Cause.NONE
        return Order(bool(stop or by_minutes) or done == self._steps or self._due.by_steps(done), stop)

    def saved(self) -> None:
        """A checkpoint was written."""
        self._due.saved()
