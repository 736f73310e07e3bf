"""Settings of `glus study`: the arms, the trainings of each, how they are asked, what is measured."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from glus.common.errors import LaunchError
from glus.common.paths import PathText, expand_path
from glus.training.tracking.tracking_place import TrackingConfig

#: Names become folders and tags.
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
#: Settings that the study itself gives to each training.
_OWN = ("name", "out", "seed", "shards", "init_from", "tracking")


@dataclass(frozen=True)
class StudyTraining:
    """One training of the chain that every arm goes through; it starts from the one before."""

    config: Path
    """Config file of `glus train`, or OUT/config.yaml of a training that is to be repeated."""
    changes: tuple[str, ...] = ()
    """How every arm departs from it, as key=value."""

    def __post_init__(self) -> None:
        # Configs expand paths of keys, not of what a table holds.
        object.__setattr__(self, "config", Path(expand_path(str(self.config))))


@dataclass(frozen=True)
class StudyArm:
    """One arm: how it departs from the others in training, in how it is asked, or in both."""

    title: str = ""
    """What it is called in the report; empty takes its name."""
    train: tuple[str, ...] = ()
    """Overrides of each of its trainings, as key=value; {seed} stands for the seed."""
    train_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further overrides of one training of the chain, by its name."""
    evaluate: tuple[str, ...] = ()
    """Overrides of each of its evaluations, as key=value; {seed} stands for the seed."""
    trained_by: str = ""
    """The arm whose trained models are asked instead of training again."""
    start: PathText = ""
    """Checkpoint that its first training starts from instead of the study's; {seed} stands for the seed."""
    key_frames: Literal["", "best", "random"] = ""
    """Begin at another frame than the first: the one where `trained_by` has its best J (which needs the truth: a bound,
    not a method), or one at random. A selector's own are inference.key_frames=FILE in `evaluate`.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", expand_path(self.start))


@dataclass(frozen=True)
class StudyEvaluation:
    """One way in which every arm's models are asked."""

    splits: tuple[str, ...]
    """Splits as DATASET/SPLIT."""
    changes: tuple[str, ...] = ()
    """Overrides of `glus evaluate`, as key=value."""
    arms: tuple[str, ...] = ()
    """The arms that are asked so; empty: all."""


@dataclass(frozen=True)
class StudyMeasure:
    """One measure of the report: the mean over expressions of a metric of scores.json."""

    metric: Literal["JF", "J", "F", "object_accuracy", "switches"]
    """Which metric of an expression."""
    evaluation: str = ""
    """In which evaluation; empty takes the first."""
    kind: str = ""
    """Of expressions of this kind; empty: of all."""
    splits: tuple[str, ...] = ()
    """In these splits, as DATASET/SPLIT; empty: in all of the evaluation."""
    title: str = ""
    """What it is called in the report; empty takes its name."""


@dataclass(frozen=True)
class StudyCurve:
    """Evaluations of checkpoints along one training: after how many steps is an accuracy reached?"""

    training: str = ""
    """Which training of the chain; empty: no curve."""
    every: int = 100
    """Steps between its checkpoints."""
    measure: Literal["pointing", "object_accuracy"] = "object_accuracy"
    """pointing: by `glus pointing`, which needs model.method=pretraining and costs little; object_accuracy: of masks,
    by `glus evaluate`, for every method.
    """
    split: str = ""
    """The split, as DATASET/SPLIT."""
    kind: str = ""
    """Of expressions of this kind; empty: of all."""
    accuracy: float = 75.0
    """The accuracy, 0 to 100."""
    clips: int = 96
    """Of pointing: how many clips."""

    def __post_init__(self) -> None:
        if self.training and not self.split:
            raise LaunchError("curve.split is empty: name a split as DATASET/SPLIT")
        if self.every < 1:
            raise LaunchError(f"curve.every={self.every}: give 1 or more steps")
        if not 0 < self.accuracy <= 100:
            raise LaunchError(f"curve.accuracy={self.accuracy}: it must be above 0 and at most 100")


@dataclass(frozen=True)
class StudyConfig:
    """`glus study STUDY.yaml [key=value ...]`: arms that differ in one part each, at equal steps, several seeds."""

    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL."""
    trainings: dict[str, StudyTraining]
    """The chain of trainings, by name, in order; each has config and changes (docs/study.md)."""
    arms: dict[str, StudyArm]
    """The arms, by name; the first is what all others are compared with. Fields: docs/study.md."""
    evaluations: dict[str, StudyEvaluation]
    """The ways in which trained models are asked, by name, the first is the usual one: splits, changes, arms."""
    measures: dict[str, StudyMeasure]
    """What the report shows, by name; each has metric, evaluation, kind, splits, title."""
    name: str = "study"
    """Name of the study: its runs have the tag `study` in MLflow."""
    out: Path = Path("build/study")
    """Folder for trainings, evaluations and the report."""
    start: PathText = ""
    """Run folder or checkpoint folder that every first training starts from; {seed} stands for the seed. Empty: what
    the training's config says.
    """
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds. All arms of a seed see the same videos at each step."""
    train: tuple[str, ...] = ()
    """Overrides of every training, as key=value."""
    evaluate: Path | None = None
    """Config file of `glus evaluate`."""
    evaluate_changes: tuple[str, ...] = ()
    """Overrides of every evaluation, as key=value."""
    curve: StudyCurve = field(default_factory=StudyCurve)
    """Steps to an accuracy."""
    title: str = "Study"
    """Title of the report."""
    pictures: bool = True
    """Draw a picture for each arm, of the first split of `picture_split`."""
    picture_split: str = ""
    """The split that pictures are of, as DATASET/SPLIT; empty takes the first of the first evaluation."""
    report_only: bool = False
    """Train and evaluate nothing: write the report of what MLflow has."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the runs are recorded and read back; without tracking.uri, OUT/mlflow.db."""

    def __post_init__(self) -> None:
        for what in ("trainings", "arms", "evaluations", "measures", "seeds"):
            if not getattr(self, what):
                raise LaunchError(f"{what} is empty: a study needs at least one of them")
        for what in ("trainings", "arms", "evaluations", "measures"):
            for name in getattr(self, what):
                if not _NAME.fullmatch(name):
                    raise LaunchError(f"{what}: {name!r}: names are lower case letters, digits and underscores")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise LaunchError(f"seeds={list(self.seeds)}: give different numbers from 0 up")
        if not self.name.strip():
            raise LaunchError("name is empty: runs are found in MLflow by it")
        self._check_arms()
        self._check_names()
        self._check_changes()

    @property
    def base(self) -> str:
        """The arm that all others are compared with."""
        return next(iter(self.arms))

    def place(self) -> TrackingConfig:
        """Where the runs are recorded."""
        if self.tracking.uri:
            return self.tracking
        return TrackingConfig(f"sqlite:///{self.out / 'mlflow.db'}", self.tracking.experiment)

    def asked_so(self, evaluation: str) -> list[str]:
        """The arms that an evaluation asks."""
        return list(self.evaluations[evaluation].arms or self.arms)

    def measured_by(self, measure: StudyMeasure) -> str:
        """The name of a measure's evaluation."""
        return measure.evaluation or next(iter(self.evaluations))

    def _check_arms(self) -> None:
        if self.arms[self.base].trained_by:
            raise LaunchError(f"arms.{self.base} is the one to compare with: it cannot be trained_by another arm")
        for name, arm in self.arms.items():
            where = f"arms.{name}"
            if arm.trained_by:
                other = self.arms.get(arm.trained_by)
                if other is None or other.trained_by:
                    trained = [each for each, one in self.arms.items() if not one.trained_by]
                    raise LaunchError(f"{where}.trained_by={arm.trained_by}: name one of {', '.join(trained)}")
                if arm.train or arm.train_of or arm.start:
                    raise LaunchError(f"{where}: trained_by trains nothing: leave out train, train_of and start")
            elif arm.key_frames:
                raise LaunchError(f"{where}.key_frames: choose the key frames of a trained arm (trained_by)")
            _check_known(f"{where}.train_of", arm.train_of, self.trainings)

    def _check_names(self) -> None:
        for name, evaluation in self.evaluations.items():
            _check_known(f"evaluations.{name}.arms", evaluation.arms, self.arms)
            if not evaluation.splits:
                raise LaunchError(f"evaluations.{name}.splits is empty: name splits as DATASET/SPLIT")
        if self.base not in self.asked_so(next(iter(self.evaluations))):
            raise LaunchError(f"the first evaluation must ask {self.base}, which all others are compared with")
        for name, measure in self.measures.items():
            asked = self.measured_by(measure)
            _check_known(f"measures.{name}.evaluation", [asked], self.evaluations)
            _check_known(f"measures.{name}.splits", measure.splits, self.evaluations[asked].splits)
        if self.curve.training:
            _check_known("curve.training", [self.curve.training], self.trainings)
        first = next(iter(self.evaluations.values()))
        if self.picture_split:
            _check_known("picture_split", [self.picture_split], first.splits)

    def _check_changes(self) -> None:
        lists = {"train": self.train, "evaluate_changes": self.evaluate_changes}
        lists |= {f"trainings.{name}.changes": each.changes for name, each in self.trainings.items()}
        lists |= {f"evaluations.{name}.changes": each.changes for name, each in self.evaluations.items()}
        for name, arm in self.arms.items():
            lists |= {f"arms.{name}.train": arm.train, f"arms.{name}.evaluate": arm.evaluate}
            lists |= {f"arms.{name}.train_of.{part}": changes for part, changes in arm.train_of.items()}
        for key, changes in lists.items():
            for change in changes:
                setting, equals, _ = change.partition("=")
                if not equals or not setting:
                    raise LaunchError(f"{key}: {change!r} is no override; write key=value")
                if "train" in key and (setting in _OWN or setting.startswith("tracking.")):
                    raise LaunchError(f"{key}: {setting} is given by the study itself: leave it out")


def _check_known(key: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise LaunchError(f"{key}: there is no {name!r}; there are: {', '.join(known)}")
