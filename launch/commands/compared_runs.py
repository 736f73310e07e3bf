"""Runs by their words: recorded ones by name, id or folder, and folders of evaluations, with their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from glus.common.errors import EvaluationError, LaunchError
from glus.common.terminal import one_line
from glus.evaluation.pages.comparison import RunRecord
from glus.evaluation.results.evaluation_folder import holds_evaluation, read_evaluation
from glus.evaluation.results.scores_file import SCORES, Scored, read_scores
from glus.evaluation.results.summary import EVALUATION, FROM_KEY_FRAMES
from glus.training.tracking.evaluation_record import evaluation_folders
from glus.training.tracking.recorded_runs import RunRecord as Recorded
from glus.training.tracking.recorded_runs import find_runs, recorded_file
from glus.training.tracking.run_record import recorded_in, run_of_folder
from glus.training.tracking.tracking_place import TrackingConfig, place_of

#: The last metric of each evaluation says which checkpoint was evaluated, by its step.
_PARTS = {"": EVALUATION, "key_frames": FROM_KEY_FRAMES}


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
