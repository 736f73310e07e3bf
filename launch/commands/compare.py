"""`glus compare RUN RUN`: recorded runs side by side, on the terminal and as pages."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from glus.common.errors import LaunchError
from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.evaluation.pages.comparison import comparison_table, published_rich, run_labels, write_comparison
from glus.evaluation.results.published_results import published_table, read_published
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.run_record import recorded_in, run_of_folder
from glus.training.tracking.tracking_place import TrackingConfig, place_of


@dataclass(frozen=True)
class CompareConfig:
    """Which runs, and where their comparison goes."""

    runs: tuple[PathText, ...] = ()
    """Names or ids of runs, or folders of trainings; without any, all runs of the experiment."""
    out: Path | None = Path("build/compare")
    """Folder for comparison.html, comparison.md and curves/; null for the terminal only."""
    title: str = "Runs compared"
    """Title of the page."""
    published: bool = False
    """Show published results next to those of the runs, for the benchmarks that the runs were evaluated on."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the runs are recorded; without tracking.uri, where the folders among `runs` say."""


def compare(config: CompareConfig) -> None:
    """Print the table and write the pages. Raises TrainingError for an unknown run."""
    runs = find_runs(_place(config), [run_of_folder(Path(run)) or run for run in config.runs])
    published = None
    if config.published:
        metrics = {label: run.metrics for label, run in zip(run_labels(runs), runs, strict=True)}
        published = published_table(metrics, read_published())
    places = [] if config.out is None else write_comparison(runs, config.out, config.title, published)
    console = Console()
    console.print(comparison_table(runs))
    if published is not None:
        console.print(published_rich(published))
    if places:
        print(plain("written: " + ", ".join(str(place) for place in places[:2])))


def _place(config: CompareConfig) -> TrackingConfig:
    """The place that is named, or else that of the trainings in the folders. Raises LaunchError where these differ."""
    if config.tracking != TrackingConfig():
        return config.tracking
    places = {run: found for run in config.runs if (found := recorded_in(Path(run)))}
    if len({(place.uri, place.experiment) for place in places.values()}) > 1:
        where = ", ".join(f"{run} in {place_of(place)} ({place.experiment})" for run, place in places.items())
        raise LaunchError(f"these trainings are recorded in several places: {where}; compare those of one place")
    return next(iter(places.values()), config.tracking)
