"""`glus pointing`: every checkpoint is asked the same, its file and MLflow say the same, and GLUS itself is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glus.evaluation.results.pointing_file import ALL, read_pointing
from glus.launch import cli
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_runs
from glus.training.train import train
from tests.training.test_pretraining_ranks import EVERYTHING

pytestmark = pytest.mark.slow

SPLIT = "mevis/train"


@pytest.mark.timeout(600)
def test_all_checkpoints_are_asked_and_recorded_at_their_steps(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = (*EVERYTHING, "engine.gradient_checkpointing=false", "engine.stage=plain", "keep.last=0")
    config = tiny_run(tmp_path / "run", *changes, "steps=2", "checkpoint_every=1")
    train(config, Rank(0, 0, 1))
    words = ["pointing", f"{tmp_path}/run", f"shards={config.shards}", f"split={SPLIT}", "clips=24"]
    assert cli.main([*words, f"out={tmp_path}/out", "checkpoints=all"]) == 0
    first, last = (read_pointing(tmp_path / "out" / f"step-{step:06d}" / "pointing.json") for step in (1, 2))
    assert (first.step, last.step, last.split) == (1, 2, SPLIT)
    assert set(last.patches) == {"motion", "colour"} and all(0 <= value <= 100 for value in last.patches.values())
    assert first.asked == last.asked and last.asked[ALL] == sum(n for kind, n in last.asked.items() if kind != ALL)
    assert {kind: set(videos) for kind, videos in first.pointing.items()} == {
        kind: set(videos) for kind, videos in last.pointing.items()
    }
    [run] = find_runs(config.tracking)
    assert [step for step, _ in run.history["eval/pointing/all"]] == [1, 2]
    assert run.metrics["eval/pointing/all"] == pytest.approx(last.percent())
    capfd.readouterr()
    assert cli.main([*words, f"out={tmp_path}/again", "record=false"]) == 0
    assert read_pointing(tmp_path / "again" / "step-000002" / "pointing.json") == last
    # Fewer context frames: the same queries.
    few = tiny_run(tmp_path / "few", *changes, "steps=0", "sampling.context_frames=0")
    train(few, Rank(0, 0, 1))
    assert cli.main([*[words[0], few.out, *words[2:]], f"out={tmp_path}/few_out"]) == 0
    assert read_pointing(tmp_path / "few_out" / "step-000000" / "pointing.json").asked == last.asked


def test_a_glus_cannot_point(
    answering_run: Path, tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pointing", str(answering_run), f"shards={tiny_demo}/shards", f"split={SPLIT}", f"out={tmp_path}/out"]
    assert cli.main([*words, "record=false"]) == 2
    assert "cannot point: it is no checkpoint of model.method=pretraining" in capsys.readouterr().err
    assert cli.main([*words, "clips=0"]) == 2
    assert "clips=0: give 1 or more" in capsys.readouterr().err
