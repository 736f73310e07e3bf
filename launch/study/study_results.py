"""What MLflow has of a study: the scores of every evaluation, and the accuracy of checkpoints."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from glus.common.errors import EvaluationError
from glus.evaluation.results.pointing_file import ALL, FILE, read_pointing
from glus.evaluation.results.scores_file import SCORES, Scored, read_scores
from glus.evaluation.results.seed_intervals import Curve, Values
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore
from glus.launch.study.pointing import PART
from glus.launch.study.study_config import StudyConfig, StudyMeasure
from glus.training.tracking.evaluation_record import EVALUATION_FOLDER, evaluation_folders
from glus.training.tracking.recorded_runs import RunRecord, find_tagged_runs, recorded_file

#: An arm, a seed, an evaluation.
Asked = tuple[str, int, str]
_Values = dict[tuple[int, Hashable, Hashable], float]


@dataclass(frozen=True)
class StudyResults:
    """Scores by (arm, seed, evaluation), curves by arm, and what a complete study would have and this one has not."""

    scores: Mapping[Asked, Scored]
    curves: Mapping[str, Curve]
    missing: tuple[Asked, ...]

    def values(self, measure: StudyMeasure, evaluation: str, arm: str) -> Values:
        """The values of one arm for a measure: (seed, video, expression) -> value."""
        found: _Values = {}
        for (name, seed, asked), scored in self.scores.items():
            if (name, asked) == (arm, evaluation):
                for score in scored.expressions:
                    value = getattr(score, measure.metric)
                    if value is not None and _counts(score, measure.kind, measure.splits):
                        video = (score.dataset, score.split, score.video)
                        found[seed, video, score.expression] = float(value)
        return found


def read_results(config: StudyConfig) -> StudyResults:
    """Read everything of the study back from MLflow.

    Raises TrainingError where MLflow cannot be reached or has no such study, EvaluationError where evaluations were
    made on other data than the first.
    """
    place, study = config.place(), {"study": config.name}
    wanted = [
        (arm, seed, evaluation)
        for evaluation in config.evaluations
        for arm in config.asked_so(evaluation)
        for seed in config.seeds
    ]
    scores: dict[Asked, Scored] = {}
    curves: dict[str, dict[int, _Values]] = {}
    with TemporaryDirectory(prefix="glus-study-") as scratch:
        # The newest counts: one that was begun again leaves another run of the same tags.
        for run in find_tagged_runs(place, study | {"kind": "evaluation"}):
            key = _asked(run)
            file = recorded_file(place, run.run_id, f"{EVALUATION_FOLDER}/{SCORES}", Path(scratch))
            if key in wanted and file:
                scores[key] = read_scores(file.parent)
        if config.curve.training:
            runs = find_tagged_runs(place, study | {"kind": "training", "training": config.curve.training})
            for run in runs:
                arm, seed, _ = _asked(run)
                if arm in config.arms and seed in config.seeds:
                    for step, values in _checkpoints(config, run, seed, Path(scratch)):
                        own = curves.setdefault(arm, {}).setdefault(step, {})
                        for name in [name for name in own if name[0] == seed]:
                            del own[name]
                        own.update(values)
    _check_data(scores)
    complete = {arm: _of_complete_seeds(curve) for arm, curve in curves.items()}
    return StudyResults(scores, complete, tuple(each for each in wanted if each not in scores))


def _asked(run: RunRecord) -> Asked:
    seed = run.tags.get("seed", "")
    return run.tags.get("arm", ""), int(seed) if seed.isdigit() else -1, run.tags.get("evaluation", "")


def _of_complete_seeds(curve: dict[int, _Values]) -> dict[int, _Values]:
    """The curve of the seeds that have every step of it: a study that goes on has some of the last seed's."""
    steps_of: dict[int, set[int]] = {}
    for step, values in curve.items():
        for seed, _, _ in values:
            steps_of.setdefault(seed, set()).add(step)
    complete = {seed for seed, steps in steps_of.items() if len(steps) == len(curve)}
    return {step: {name: value for name, value in of.items() if name[0] in complete} for step, of in curve.items()}


def _checkpoints(config: StudyConfig, run: RunRecord, seed: int, scratch: Path) -> Iterator[tuple[int, _Values]]:
    """(step, values) of the checkpoints of a run that were asked."""
    curve, place = config.curve, config.place()
    metric = f"eval/pointing/{ALL}" if curve.measure == "pointing" else "eval/overall/object_accuracy"
    for step in sorted({step for step, _ in run.history.get(metric, ())}):
        if curve.measure == "pointing":
            folder = f"evaluation/step-{step:06d}/{PART}"
            file = recorded_file(place, run.run_id, f"{folder}/{FILE}", scratch / str(step))
            if file:
                videos = read_pointing(file).pointing.get(curve.kind or ALL, {})
                yield step, {(seed, video, ""): value for video, value in videos.items()}
            continue
        found = evaluation_folders(run.tags, step).get("")
        file = recorded_file(place, run.run_id, f"{found}/{SCORES}", scratch / str(step)) if found else None
        if file:
            yield (
                step,
                {
                    (seed, (score.dataset, score.split, score.video), score.expression): score.object_accuracy
                    for score in read_scores(file.parent).expressions
                    if score.object_accuracy is not None and _counts(score, curve.kind, (curve.split,))
                },
            )


def _counts(score: ExpressionScore, kind: str, splits: tuple[str, ...]) -> bool:
    shown = not score.hidden and score.type_id != WITHOUT_TARGET
    return shown and kind in ("", score.kind) and (not splits or f"{score.dataset}/{score.split}" in splits)


def _check_data(scores: Mapping[Asked, Scored]) -> None:
    """Raise EvaluationError where two evaluations are of other shards of one split."""
    first: dict[str, tuple[str, Asked]] = {}
    for key, scored in scores.items():
        for name in sorted({f"{score.dataset}/{score.split}" for score in scored.expressions}):
            fingerprint = scored.origin.get(name, "")
            known, other = first.setdefault(name, (fingerprint, key))
            if known != fingerprint:
                raise EvaluationError(
                    f"{key[0]} of seed {key[1]} was evaluated on other shards of {name} than {other[0]} of seed "
                    f"{other[1]}: evaluate both on the same shards"
                )
