"""What a demo draws, trains and evaluates, as a table: `Recipe`, a chain of trainings that differ in a few settings."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoTraining:
    """One `glus train`: what it starts from, how it departs from the recipe's config file, and what it trains."""

    name: str
    steps: int
    start: str = ""
    """The training whose last checkpoint it starts from; without one, the pretrained image encoder."""
    decay: int | None = None
    """Steps at the end in which the learning rate falls to 0; none: as the config file says."""
    changes: tuple[str, ...] = ()
    """Overrides of the config file, as key=value."""
    trains: tuple[str, ...] = ()
    """Patterns of trained parameters; empty: those of the config file."""
    evaluated: bool = False

    def overrides(self, length: float) -> tuple[str, ...]:
        """All its departures from the config file, with `length` times the steps."""
        decay = () if self.decay is None else (f"optimizer.decay_steps={_times(self.decay, length)}",)
        trains = (f"trainable=[{', '.join(self.trains)}]",) if self.trains else ()
        return (f"steps={_times(self.steps, length)}", *decay, *self.changes, *trains)


@dataclass(frozen=True)
class Recipe:
    """One demo."""

    data: Path
    """Config file of `glus demo-data`."""
    datasets: tuple[str, ...]
    """What is drawn."""
    train: Path
    """Config file of `glus train`, which each training changes."""
    trainings: tuple[DemoTraining, ...]
    """In the order in which they run."""
    final: str
    """The training whose model the demo is about."""
    single_frames: str
    """An evaluated training on single frames, which the final one is compared with on motion."""
    splits: tuple[str, ...]
    """What is evaluated."""
    further: tuple[str, ...] = ()
    """Datasets that `data` draws without being asked, prepared too."""


def _times(steps: int, length: float) -> int:
    """Never 0 where there were steps."""
    return max(1, round(steps * length)) if steps else 0
