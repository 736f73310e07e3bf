"""The commands of a study, in order: of each seed and arm its trainings, then its evaluations."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from glus.common.errors import LaunchError
from glus.launch.config.configuration import load_config
from glus.launch.stages import Stage, checkpoint_files
from glus.launch.study.key_frame_files import write_key_frames
from glus.launch.study.study_config import StudyArm, StudyConfig
from glus.training.run_config import RunConfig

#: What stands in changes and paths for the seed of the run.
SEED = "{seed}"
#: Folders below that of an arm.
EVALUATIONS, CURVE = "eval", "curve"
#: Sections of a training's config that a start replaces.
_NO_WEIGHTS = "weights={}"


def arm_folder(config: StudyConfig, arm: str, seed: int) -> Path:
    """The folder of one arm of one seed."""
    return config.out / f"seed-{seed}" / arm


def evaluation_folder(config: StudyConfig, arm: str, seed: int, evaluation: str) -> Path:
    """What `glus evaluate` writes into."""
    return arm_folder(config, arm, seed) / EVALUATIONS / evaluation


def tags_of(config: StudyConfig, arm: str, seed: int) -> dict[str, str]:
    """The tags of all runs of one arm of one seed in MLflow."""
    return {"study": config.name, "arm": arm, "seed": str(seed)}


def check_runs(config: StudyConfig) -> dict[tuple[str, str], RunConfig]:
    """Return the settings of each arm's trainings, by (arm, training), with the first seed.

    Raises LaunchError, TrainingError, ModelError or DataError, before anything runs, for what no training could begin
    with.
    """
    found = {}
    for name, arm in config.arms.items():
        if not arm.trained_by:
            for training in config.trainings:
                words = _training_words(config, name, config.seeds[0], training)
                file = Path(words[1])
                if not file.is_file():
                    raise LaunchError(f"trainings.{training}.config: {file} is not there")
                try:
                    found[name, training] = load_config(RunConfig, file, words[2:])
                except LaunchError as error:
                    raise LaunchError(f"arms.{name}, training {training}: {error}") from error
    return found


def count_stages(config: StudyConfig, runs: dict[tuple[str, str], RunConfig]) -> int:
    """How many stages `study_stages` yields."""
    evaluations = sum(len(config.asked_so(name)) for name in config.evaluations)
    curves = 0
    if config.curve.training:
        of_curve = [run for (_, training), run in runs.items() if training == config.curve.training]
        pointing = config.curve.measure == "pointing"
        curves = sum(1 if pointing else len(curve_steps(config, run.steps)) for run in of_curve)
    return len(config.seeds) * (len(runs) + curves + evaluations)


def curve_steps(config: StudyConfig, steps: int) -> list[int]:
    """The steps whose checkpoints are asked: every so many, and the last."""
    every = config.curve.every
    return sorted({*range(every, steps + 1, every), steps})


def study_stages(config: StudyConfig, runs: dict[tuple[str, str], RunConfig]) -> Iterator[Stage]:
    """Yield the stages in order. Each must have run before the next is asked for: it reads what that made."""
    trained = [name for name, arm in config.arms.items() if not arm.trained_by]
    asked = [name for name in config.arms if name not in trained]
    for seed in config.seeds:
        for name in (*trained, *asked):
            if name in trained:
                for training in config.trainings:
                    yield _training(config, name, seed, training)
                    if training == config.curve.training:
                        yield from _curve(config, name, seed, runs[name, training].steps)
            for evaluation in config.evaluations:
                if name in config.asked_so(evaluation):
                    yield _evaluation(config, name, seed, evaluation)


def _training(config: StudyConfig, name: str, seed: int, training: str) -> Stage:
    words = _training_words(config, name, seed, training)
    out, start = arm_folder(config, name, seed) / training, _start(config, name, seed, training)
    inputs = (*(checkpoint_files(start) if start else ()), *_manifests(config.shards))
    return Stage(f"seed {seed}, {name}: train {training}", words, makes=(out,), inputs=inputs)


def _training_words(config: StudyConfig, name: str, seed: int, training: str) -> tuple[str, ...]:
    arm, given, place = config.arms[name], config.trainings[training], config.place()
    out, start = arm_folder(config, name, seed) / training, _start(config, name, seed, training)
    tags = tags_of(config, name, seed) | {"training": training}
    begins = (_NO_WEIGHTS, f"init_from={start}") if start else ()
    checkpoints: tuple[str, ...] = ()
    if training == config.curve.training:
        checkpoints = (f"checkpoint_every={config.curve.every}", "keep.last=0")
    return (
        *("train", str(given.config), f"name={config.name}-{name}-{seed}-{training}", f"out={out}", f"seed={seed}"),
        *(f"shards={config.shards}", *begins, *checkpoints),
        *(f"tracking.uri={place.uri}", f"tracking.experiment={place.experiment}", f"tracking.tags={json.dumps(tags)}"),
        *_of_seed((*given.changes, *config.train, *arm.train, *arm.train_of.get(training, ())), seed),
    )


def _start(config: StudyConfig, name: str, seed: int, training: str) -> Path | None:
    """What a training starts from: the one before, or for the first what the arm or the study says."""
    names = list(config.trainings)
    place = names.index(training)
    if place:
        return arm_folder(config, name, seed) / names[place - 1]
    start = config.arms[name].start or config.start
    return Path(start.replace(SEED, str(seed))) if start else None


def _curve(config: StudyConfig, name: str, seed: int, steps: int) -> Iterator[Stage]:
    """Ask the checkpoints of a training."""
    curve, folder = config.curve, arm_folder(config, name, seed)
    run, out = folder / curve.training, folder / CURVE
    inputs = (*checkpoint_files(run), *_manifests(config.shards))
    title = f"seed {seed}, {name}"
    if curve.measure == "pointing":
        asked = (
            *("pointing", str(run), f"shards={config.shards}", f"out={out}", f"split={curve.split}"),
            *(f"clips={curve.clips}", "checkpoints=all"),
        )
        yield Stage(f"{title}: point after every {curve.every} steps", asked, makes=(out,), inputs=inputs)
        return
    for step in curve_steps(config, steps):
        checkpoint = run / "checkpoints" / f"step-{step:06d}"
        made = out / checkpoint.name
        words = _evaluate_words(config, checkpoint, made, (curve.split,), config.evaluate_changes)
        yield Stage(f"{title}: evaluate step {step}", words, makes=(made,), inputs=inputs)


def _evaluation(config: StudyConfig, name: str, seed: int, evaluation: str) -> Stage:
    arm, asked = config.arms[name], config.evaluations[evaluation]
    run = arm_folder(config, arm.trained_by or name, seed) / list(config.trainings)[-1]
    out = evaluation_folder(config, name, seed, evaluation)
    tags = tags_of(config, name, seed) | {"evaluation": evaluation}
    changes = [*config.evaluate_changes, *asked.changes, *_of_seed(arm.evaluate, seed)]
    inputs = [*checkpoint_files(run), *_manifests(config.shards)]
    if arm.key_frames:
        file = _key_frames(config, name, arm, seed)
        changes.append(f"inference.key_frames={file}")
        inputs.append(file)
    title = f"{config.name}, {arm.title or name}, seed {seed}"
    own = (f"title={title}", f"tags={json.dumps(tags)}")
    words = (*_evaluate_words(config, run, out, asked.splits, changes), *own)
    return Stage(f"seed {seed}, {name}: evaluate {evaluation}", words, makes=(out,), inputs=tuple(inputs))


def _evaluate_words(
    config: StudyConfig, checkpoint: Path, out: Path, splits: Sequence[str], changes: Sequence[str]
) -> tuple[str, ...]:
    files = (str(config.evaluate),) if config.evaluate else ()
    return (
        *("evaluate", *files, f"checkpoint={checkpoint}", f"shards={config.shards}", f"out={out}"),
        *(f"splits=[{', '.join(splits)}]", "report=false", *changes),
    )


def _key_frames(config: StudyConfig, name: str, arm: StudyArm, seed: int) -> Path:
    """Choose them by the first evaluation of the arm that trained."""
    first = next(iter(config.evaluations))
    scored = evaluation_folder(config, arm.trained_by, seed, first)
    file = arm_folder(config, name, seed) / "key_frames.json"
    assert arm.key_frames
    write_key_frames(file, scored, arm.key_frames, seed)
    return file


def _of_seed(changes: Sequence[str], seed: int) -> list[str]:
    return [change.replace(SEED, str(seed)) for change in changes]


def _manifests(shards: str) -> tuple[Path, ...]:
    """The manifests of shards on this disk, whose digests identify their content; of a URL none."""
    return tuple(sorted(Path(shards).glob("*/*/manifest.json"))) if "://" not in shards else ()
