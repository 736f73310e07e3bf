"""`glus demo` in a short form that learns nothing: every stage on real components, then the summary."""

import json
from pathlib import Path

import pytest

from glus.common.errors import LaunchError
from glus.demo.demo import RECIPES, DemoConfig
from glus.demo.recipe import DemoTraining, Recipe
from glus.launch import cli
from glus.launch.config.configuration import load_config
from glus.training.run_config import RunConfig

SHORT = (
    "data_changes=[train_videos=2, valid_videos=1, world.frames=6, world.width=48, world.height=48]",
    "encoder_changes=[training.steps=2]",
    "train_changes=[steps=1, ranks=1, global_batch_size=4, engine.micro_batch_size=4]",
    "splits=[mevis/valid_u, ref_davis17/valid]",
)


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("warm")
def test_the_short_form_ends_with_j_and_f_by_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "recipe=looks", f"out={tmp_path}/demo", *SHORT]
    assert cli.main(words) == 0
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text(encoding="utf-8"))
    recipe = RECIPES["looks"]
    evaluated = [training.name for training in recipe.trainings if training.evaluated]
    assert set(summary["jf"]) == set(evaluated) and next(iter(summary["jf"])) == recipe.final
    accuracies = summary["object_accuracy"][recipe.final]
    assert set(accuracies) == {"mevis/valid_u", "ref_davis17/valid"}
    assert all(0 <= value <= 100 for value in accuracies.values())
    ours, theirs = (summary["jf_by_kind"][name]["motion"] for name in (recipe.final, recipe.single_frames))
    assert summary["jf_motion_gain"] == pytest.approx(ours - theirs, abs=0.011)
    stages = 4 + len(recipe.trainings) + len(evaluated)
    assert len(summary["stage_seconds"]) == stages
    assert "object accuracy" in capfd.readouterr().out
    assert (tmp_path / "demo" / "compare" / "comparison.html").is_file()
    assert cli.main(words) == 0
    assert capfd.readouterr().out.count("done before") == stages


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_each_training_has_settings_that_hold_and_starts_from_an_earlier_one(recipe: Recipe) -> None:
    for number, training in enumerate(recipe.trainings):
        config = load_config(RunConfig, recipe.train, ["out=unused", *training.overrides(1.0)])
        assert config.steps == training.steps
        assert training.start in {"", *(earlier.name for earlier in recipe.trainings[:number])}
    evaluated = {training.name for training in recipe.trainings if training.evaluated}
    assert {recipe.final, recipe.single_frames} <= evaluated


def test_a_length_multiplies_steps_and_the_fall_of_the_learning_rate() -> None:
    training = DemoTraining("a", steps=1200, decay=400)
    assert training.overrides(0.25) == ("steps=300", "optimizer.decay_steps=100")
    assert training.overrides(0.0001) == ("steps=1", "optimizer.decay_steps=1")
    assert DemoTraining("untrained", steps=0).overrides(0.25) == ("steps=0",)
    with pytest.raises(LaunchError, match=r"length=0\.0: it must be above 0"):
        DemoConfig(length=0.0)
