"""`glus compare RUN RUN`: recorded runs side by side, on the terminal and as pages."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from glus.evaluation.comparison import comparison_table, write_comparison
from glus.training.tracking import TrackingConfig, find_runs


@dataclass(frozen=True)
class CompareConfig:
    """Which runs, and where their comparison goes."""

    runs: tuple[str, ...] = ()
    """Names or ids of runs; without any, all runs of the experiment."""
    out: Path | None = Path("build/compare")
    """Folder for comparison.html, comparison.md and curves/; null for the terminal only."""
    title: str = "Runs compared"
    """Title of the page."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the runs are recorded."""


def compare(config: CompareConfig) -> None:
    """Prints the table and writes the pages. Raises TrainingError for an unknown run."""
    runs = find_runs(config.tracking, config.runs)
    places = [] if config.out is None else write_comparison(runs, config.out, config.title)
    Console().print(comparison_table(runs))
    if places:
        print("written: " + ", ".join(str(place) for place in places[:2]))
