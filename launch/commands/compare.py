"""`glus compare RUN RUN`: runs and evaluations side by side, on the terminal and as pages."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.evaluation.pages.comparison import comparison_tables, published_rich, run_labels, write_comparison
from glus.evaluation.results.published_results import published_table, read_published
from glus.launch.commands.compared_runs import compared_runs
from glus.launch.commands.metrics_table import WIDTH
from glus.training.tracking.tracking_place import TrackingConfig


@dataclass(frozen=True)
class CompareConfig:
    """Which runs, and where their comparison goes."""

    runs: tuple[PathText, ...] = ()
    """Names or ids of recorded runs, folders of trainings, or folders that `glus evaluate` or `glus score` wrote, which
    need no MLflow. Differences are against the first. Without any, all runs of the experiment."""
    out: Path | None = Path("build/compare")
    """Folder for comparison.html, comparison.md and curves/; null for the terminal only."""
    title: str = "Runs compared"
    """Title of the page."""
    published: bool = False
    """Show published results next to those of the runs, for the benchmarks that the runs were evaluated on."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the runs are recorded; without tracking.uri, where the folders among `runs` say."""


def compare(config: CompareConfig) -> None:
    """Print the tables and write the pages. Raises TrainingError for an unknown run."""
    found = compared_runs(config.runs, config.tracking)
    runs, scores = [each.record for each in found], [each.scores for each in found]
    published = None
    if config.published:
        metrics = {label: run.metrics for label, run in zip(run_labels(runs), runs, strict=True)}
        published = published_table(metrics, read_published())
    places = [] if config.out is None else write_comparison(runs, config.out, config.title, published, scores)
    console = Console()
    if not console.is_terminal:  # a pipe has no width of its own; rich's 80 columns would break the names
        console = Console(width=WIDTH)
    console.print(comparison_tables(runs, scores))
    if published is not None:
        console.print(published_rich(published))
    if places:
        print(plain("written: " + ", ".join(str(place) for place in places[:2])))
