"""`glus compare RUN RUN`: runs and evaluations side by side, on the terminal and as pages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from glus.common.errors import EvaluationError, LaunchError
from glus.common.paths import PathText
from glus.common.terminal import one_line, plain
from glus.evaluation.pages.comparison import RunRecord, comparison_tables, published_rich, run_labels, write_comparison
from glus.evaluation.results.evaluation_folder import holds_evaluation, read_evaluation
from glus.evaluation.results.published_results import published_table, read_published
from glus.evaluation.results.scores_file import SCORES, Scored, read_scores
from glus.evaluation.results.summary import EVALUATION, FROM_KEY_FRAMES
from glus.launch.commands.metrics_table import WIDTH
from glus.training.tracking.evaluation_record import evaluation_folders
from glus.training.tracking.recorded_runs import RunRecord as Recorded
from glus.training.tracking.recorded_runs import find_runs, recorded_file
from glus.training.tracking.run_record import recorded_in, run_of_folder
from glus.training.tracking.tracking_place import TrackingConfig, place_of

#: The last metric of each evaluation says which checkpoint was evaluated, by its step.
_PARTS = {"": EVALUATION, "key_frames": FROM_KEY_FRAMES}


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


@dataclass(frozen=True)
class ComparedRun:
    """A run and the scores of its evaluations, by the beginning of their metrics' names."""

    record: RunRecord
    scores: dict[str, Scored]


def compared_runs(words: Sequence[str], tracking: TrackingConfig) -> list[ComparedRun]:
    """Return the runs in the order of `words`; without any, all runs of the experiment.

    Folders of evaluations need no MLflow. Raises TrainingError for an unknown run, EvaluationError for scores that
    cannot be read, LaunchError where the trainings among the folders are recorded in several places.
    """
    evaluations = {word: read_evaluation(Path(word)) for word in words if holds_evaluation(Path(word))}
    others = [word for word in words if word not in evaluations]
    recorded: list[ComparedRun] = []
    if others or not words:
        place = _place(others, tracking)
        found = find_runs(place, [run_of_folder(Path(word)) or word for word in others])
        with TemporaryDirectory(prefix="glus-compare-") as scratch:
            recorded = [ComparedRun(run, _scores(run, place, Path(scratch))) for run in found]
    if not words:
        return recorded
    by_word = dict(zip(others, recorded, strict=True))
    by_word |= {word: ComparedRun(run, {EVALUATION: run.scored}) for word, run in evaluations.items()}
    return [by_word[word] for word in words]


def _scores(run: Recorded, place: TrackingConfig, scratch: Path) -> dict[str, Scored]:
    """The scores behind the run's last metrics. What cannot be read is reported and left out."""
    found = {}
    for part, begin in _PARTS.items():
        points = run.history.get(f"{begin}overall/JF", ())
        folder = evaluation_folders(run.tags, points[-1][0]).get(part) if points else None
        file = folder and recorded_file(place, run.run_id, f"{folder}/{SCORES}", scratch)
        if file:
            try:
                found[begin] = read_scores(file.parent)
            except EvaluationError as error:
                print(one_line(f"no paired differences for {run.name}: {error}"))
    return found


def _place(words: Sequence[str], tracking: TrackingConfig) -> TrackingConfig:
    """The place that is named, or else that of the trainings in the folders. Raises LaunchError where these differ."""
    if tracking != TrackingConfig():
        return tracking
    places = {word: found for word in words if (found := recorded_in(Path(word)))}
    if len({(place.uri, place.experiment) for place in places.values()}) > 1:
        where = ", ".join(f"{word} in {place_of(place)} ({place.experiment})" for word, place in places.items())
        raise LaunchError(f"these trainings are recorded in several places: {where}; compare those of one place")
    return next(iter(places.values()), tracking)
