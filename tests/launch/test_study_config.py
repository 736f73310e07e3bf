"""A study that cannot be run is refused before anything runs, with the key and what to do."""

from pathlib import Path
from typing import Any

import pytest

from glus.common.errors import LaunchError, UserError
from glus.launch.config.configuration import load_config
from glus.launch.config.yaml_text import format_yaml
from glus.launch.study.study_config import StudyConfig
from glus.launch.study.study_results import _of_complete_seeds
from glus.launch.study.study_stages import check_runs, count_stages, curve_steps

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "tests" / "tiny_run.yaml")


def study(tmp_path: Path, **changes: Any) -> StudyConfig:
    given: dict[str, Any] = {
        "shards": "shards",
        "trainings": {"main": {"config": TINY}},
        "arms": {"all": {}, "no_memory": {"train": ["model.segmenter.use_memory=false"]}},
        "evaluations": {"usual": {"splits": ["mevis/valid_u"]}},
        "measures": {"jf": {"metric": "JF"}},
    }
    file = tmp_path / "study.yaml"
    file.write_text(format_yaml(given | changes), encoding="utf-8")
    return load_config(StudyConfig, file, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"all": {}, "No": {}}}, "arms: 'No': names are lower case letters, digits and underscores"),
        ({"arms": {"all": {"trained_by": "b"}, "b": {}}}, "arms.all is the one to compare with"),
        ({"arms": {"all": {}, "b": {"trained_by": "c"}}}, r"arms.b.trained_by=c: name one of all"),
        (
            {"arms": {"all": {}, "b": {"trained_by": "all", "train": ["steps=1"]}}},
            "arms.b: trained_by trains nothing: leave out train, train_of and start",
        ),
        ({"arms": {"all": {}, "b": {"key_frames": "best"}}}, "arms.b.key_frames: choose the key frames of a trained"),
        ({"arms": {"all": {"train_of": {"x": []}}}}, "arms.all.train_of: there is no 'x'; there are: main"),
        ({"arms": {"all": {"train": ["steps"]}}}, "arms.all.train: 'steps' is no override; write key=value"),
        ({"train": ["seed=3"]}, "train: seed is given by the study itself: leave it out"),
        ({"train": ["tracking.tags={}"]}, "train: tracking.tags is given by the study itself"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: give different numbers from 0 up"),
        ({"seeds": []}, "seeds is empty: a study needs at least one of them"),
        ({"measures": {"a": {"metric": "JF", "evaluation": "b"}}}, "measures.a.evaluation: there is no 'b'"),
        ({"measures": {"a": {"metric": "JF", "splits": ["b/c"]}}}, "measures.a.splits: there is no 'b/c'; there are"),
        ({"evaluations": {"a": {"splits": []}}}, "evaluations.a.splits is empty: name splits as DATASET/SPLIT"),
        ({"curve": {"training": "main"}}, "curve.split is empty: name a split"),
        ({"curve": {"training": "b", "split": "a/b"}}, "curve.training: there is no 'b'; there are: main"),
        ({"curve": {"every": 0}}, "curve.every=0: give 1 or more steps"),
        ({"curve": {"accuracy": 0.0}}, "curve.accuracy=0.0: it must be above 0 and at most 100"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        study(tmp_path, **changes)


def test_settings_of_every_arm_are_checked_before_anything_runs(tmp_path: Path) -> None:
    wrong = study(tmp_path, arms={"all": {}, "typo": {"train": ["model.segmenter.use_memroy=false"]}})
    with pytest.raises(LaunchError, match=r"arms.typo, training main: .*did you mean model.segmenter.use_memory"):
        check_runs(wrong)
    absent = study(tmp_path, trainings={"main": {"config": str(tmp_path / "none.yaml")}})
    with pytest.raises(LaunchError, match=r"trainings.main.config: .*none.yaml is not there"):
        check_runs(absent)
    with pytest.raises(UserError, match="context_frames"):
        check_runs(study(tmp_path, train=["sampling.context_frames=none"]))


def test_arms_differ_in_their_part_alone(tmp_path: Path) -> None:
    config = study(
        tmp_path,
        trainings={"first": {"config": TINY}, "main": {"config": TINY, "changes": ["steps=7"]}},
        curve={"training": "main", "every": 3, "split": "mevis/valid_u"},
        seeds=[4, 5],
        start="begin-{seed}",
    )
    runs = check_runs(config)
    first, other = runs["all", "main"], runs["no_memory", "main"]
    assert (first.seed, other.seed, first.steps, first.checkpoint_every, first.keep.last) == (4, 4, 7, 3, 0)
    assert first.model.segmenter.use_memory and not other.model.segmenter.use_memory
    assert first.sampling == other.sampling and first.optimizer == other.optimizer
    assert first.init_from.endswith("seed-4/all/first") and runs["all", "first"].init_from == "begin-4"
    assert first.tracking.tags == {"study": "study", "arm": "all", "seed": "4", "training": "main"}
    assert curve_steps(config, 7) == [3, 6, 7]
    # Of two seeds: two arms, each of two trainings, three checkpoints and one evaluation.
    assert count_stages(config, runs) == 2 * (4 + 6 + 2)


def test_the_study_of_the_demo_compares_three_ways_of_asking() -> None:
    config = load_config(StudyConfig, ROOT / "configs" / "study.yaml", [])
    assert config.base == "all" and len(config.seeds) == 3
    asked = [name for name, arm in config.arms.items() if arm.trained_by]
    assert asked == ["memory_off_asked", "key_frames_best", "key_frames_random"]


def test_a_seed_counts_in_the_curve_once_all_its_steps_are_there() -> None:
    curve: dict[int, Any] = {100: {(0, "a", ""): 1.0, (1, "a", ""): 2.0}, 200: {(0, "a", ""): 3.0}}
    assert _of_complete_seeds(curve) == {100: {(0, "a", ""): 1.0}, 200: {(0, "a", ""): 3.0}}
