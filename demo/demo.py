"""`glus demo`: data, training and evaluation on this machine. Each stage is a command of `glus` in its own process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glus.common.errors import LaunchError
from glus.demo.demo_stages import (
    EXPERIMENT,
    data_stages,
    encoder_stage,
    evaluation_stage,
    print_mlflow,
    set_up_seconds,
    tracking_place,
    training_stage,
)
from glus.demo.demo_summary import print_summary, summarise_demo
from glus.demo.recipe import DemoTraining, Recipe
from glus.demo.recipe_looks import LOOKS
from glus.demo.recipe_motion import MOTION
from glus.launch.stages import Stage, StageFailed, Stages, with_terminate_as_interrupt

RECIPES = {"motion": MOTION, "looks": LOOKS}


@dataclass(frozen=True)
class DemoConfig:
    """Where the demo lies, and how it departs from its recipe."""

    out: Path = Path("build/demo")
    """Folder for everything that the demo makes."""
    recipe: Literal["motion", "looks"] = "motion"
    """What is drawn and trained: demo/recipe_motion.py (48 minutes on two cores, sees motion) or
    demo/recipe_looks.py (10 minutes, knows objects by their looks).
    """
    length: float = 1.0
    """Factor on the steps of every training."""
    data_changes: tuple[str, ...] = ()
    """Overrides for the data, as key=value."""
    train_changes: tuple[str, ...] = ()
    """Overrides for every training, as key=value."""
    encoder_changes: tuple[str, ...] = ()
    """Overrides for the image encoder's, as key=value."""
    splits: tuple[str, ...] = ()
    """What is evaluated; empty: what the recipe says."""

    def __post_init__(self) -> None:
        if not 0 < self.length < 1000:
            raise LaunchError(f"length={self.length}: it must be above 0 and below 1000")


def demo(config: DemoConfig) -> int:
    """Run what is not done yet, then write OUT/summary.json and print it.

    Returns 0, or the exit code of the stage that failed (it printed why). Raises LaunchError where OUT holds what the
    demo did not make.
    """
    recipe = RECIPES[config.recipe]
    evaluated = [training for training in recipe.trainings if training.evaluated]
    stages = Stages(config.out, total=4 + len(recipe.trainings) + len(evaluated))
    with_terminate_as_interrupt()
    try:
        drawn = (f"datasets=[{', '.join(recipe.datasets)}]", *config.data_changes)
        for stage in data_stages(config.out, recipe.data, drawn, (*recipe.datasets, *recipe.further)):
            stages.run(stage)
        stages.run(encoder_stage(config.out, recipe.train, config.train_changes, config.encoder_changes))
        for training in recipe.trainings:
            stages.run(_training(config, recipe, training))
        for training in evaluated:
            stages.run(_evaluation(config, recipe, training))
        stages.run(_comparison(config, evaluated))
    except StageFailed as failed:
        return failed.report("glus demo")
    folders = {training.name: config.out / "eval" / training.name for training in evaluated}
    print_summary(summarise_demo(config.out, folders, recipe, stages, set_up_seconds()))
    _print_places(config.out, recipe.final, folders)
    return 0


def _training(config: DemoConfig, recipe: Recipe, training: DemoTraining) -> Stage:
    changes = (f"name={training.name}", *training.overrides(config.length), *config.train_changes)
    start = config.out / training.start if training.start else None
    name = f"train {training.name}"
    return training_stage(config.out, config.out / training.name, recipe.train, changes, start, name)


def _evaluation(config: DemoConfig, recipe: Recipe, training: DemoTraining) -> Stage:
    run, makes, splits = config.out / training.name, config.out / "eval" / training.name, config.splits or recipe.splits
    title = f"Demo, {training.name.replace('_', ' ')}"
    return evaluation_stage(config.out, run, makes, splits, title, f"evaluate {training.name}")


def _comparison(config: DemoConfig, evaluated: list[DemoTraining]) -> Stage:
    from glus.training.checkpoints import checkpoint

    # By id: a run that was begun again leaves one of the same name behind.
    newest = [checkpoint.resolve(config.out / training.name) for training in evaluated]
    ids = [checkpoint.read_state(each).tracking_run for each in newest]
    title = ", ".join(training.name.replace("_", " ") for training in evaluated)
    words = (
        *("compare", *ids, f"out={config.out / 'compare'}", f"title=Demo: {title}"),
        *(f"tracking.uri={tracking_place(config.out)}", f"tracking.experiment={EXPERIMENT}"),
    )
    scores = tuple(config.out / "eval" / training.name / "scores.json" for training in evaluated)
    return Stage("compare", words, makes=(config.out / "compare",), inputs=scores, code=("evaluation",))


def _print_places(out: Path, final: str, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        print(f"report, {name.replace('_', ' ')}: {folder / 'report.html'}")
    print(f"pictures: {folders[final] / 'overlays'}")
    print(f"runs side by side: {out / 'compare' / 'comparison.html'}")
    print(f"results: {out / 'summary.json'}")
    print_mlflow(out)
