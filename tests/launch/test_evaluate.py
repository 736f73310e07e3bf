"""`glus evaluate`: a checkpoint in, figures on disk and in tracking; what is there is kept, what is foreign refused."""

import json
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glus.data_pipeline.reader import ShardedSplit
from glus.evaluation.inference_config import InferenceConfig
from glus.evaluation.predictions import expression_folder, write_masks
from glus.launch import cli
from glus.launch.errors import LaunchError
from glus.launch.predict import Prediction, predict, processes_for
from glus.training.config import RunConfig
from glus.training.distributed import Rank
from glus.training.tracking import find_runs
from glus.training.train import train

SPLIT = "mevis/valid_u"


@pytest.fixture(scope="module")
def run(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A model as it begins: `steps=0` writes its checkpoint and its tracking run."""
    config = tiny_run(tmp_path_factory.mktemp("untrained") / "run", "steps=0")
    path = train(config, Rank(0, 0, 1))
    assert path.name == "step-000000"
    assert train(config, Rank(0, 0, 1)) == path  # done is done
    return config


@pytest.fixture
def words(run: RunConfig, tmp_path: Path) -> list[str]:
    return ["evaluate", f"checkpoint={run.out}", f"shards={run.shards}", f"out={tmp_path}/eval", "processes=1"]


def test_figures_are_written_told_and_recorded(
    words: list[str], run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    out = tmp_path / "eval"
    document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert [each["split"] for each in document["summary"]["benchmarks"]] == ["valid_u"]
    assert {each["missing"] for each in document["expressions"]} == {False}
    shown = capsys.readouterr().out
    assert "MeViS valid_u" in shown and "kind: motion" in shown and "missing predictions: 0" in shown
    *_, page, scores, table = shown.splitlines()
    assert page == f"written: {out / 'report.html'}" and (out / "report.html").is_file()
    assert (scores, table) == (f"written: {out / 'scores.json'}", f"written: {out / 'scores.csv'}")
    [record] = find_runs(run.tracking)
    overall = document["summary"]["overall"]
    assert record.history["eval/overall/JF"] == ((0, pytest.approx(overall["JF"])),)
    assert record.metrics["eval/control/drop"] == pytest.approx(overall["drop"])
    assert {f"eval/{SPLIT}/JF", "eval/kind/motion/JF", "eval/control/JF"} <= record.metrics.keys()
    kept = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    frames = sum(each["frames"] for each in document["expressions"])
    assert kept["step"] == 0 and kept["frames"] == frames and 0 <= kept["frames_without_seg"] <= frames


def test_what_is_predicted_is_kept_and_what_lacks_is_made(words: list[str], run: RunConfig, tmp_path: Path) -> None:
    quick = [*words, "report=false", "record=false"]
    assert cli.main(quick) == 0
    split = ShardedSplit.open(Path(run.shards) / SPLIT)
    first, second, *_ = split.videos[0].expressions
    masks = tmp_path / "eval" / "predictions"
    kept = expression_folder(masks, split.videos[0], first)
    shutil.rmtree(expression_folder(masks, split.videos[0], second))
    times = {each: each.stat().st_mtime_ns for each in kept.iterdir()}
    assert cli.main(quick) == 0
    assert {each: each.stat().st_mtime_ns for each in kept.iterdir()} == times
    assert expression_folder(masks, split.videos[0], second).is_dir()


def foreign_checkpoint(run: RunConfig, folder: Path) -> Path:
    """The same run with a weight that differs."""
    copied = folder / "other"
    shutil.copytree(Path(run.out) / "checkpoints" / "step-000000", copied)
    with open(copied / "model.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(0.123).tobytes())
    return copied


def test_predictions_of_another_checkpoint_are_refused_or_made_anew(
    words: list[str], run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = [*words, "report=false", "record=false"]
    assert cli.main(quick) == 0
    before = (tmp_path / "eval" / "predictions.json").read_bytes()
    other = [*quick, f"checkpoint={foreign_checkpoint(run, tmp_path)}"]
    capsys.readouterr()
    assert cli.main(other) == 2
    told = capsys.readouterr().err
    assert "predictions holds predictions of another checkpoint" in told and "or say fresh=true" in told
    assert (tmp_path / "eval" / "predictions.json").read_bytes() == before
    assert cli.main([*quick, "inference.memory_stride=1"]) == 2
    assert "was predicted with other settings (memory_stride 3, now 1)" in capsys.readouterr().err
    assert cli.main([*other, "fresh=true"]) == 0
    assert (tmp_path / "eval" / "predictions.json").read_bytes() != before


def test_masks_of_nobody_knows_whom_are_refused(
    words: list[str], run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [entry] = ShardedSplit.open(Path(run.shards) / SPLIT).videos
    empty = np.zeros((len(entry.frame_names), entry.height, entry.width), dtype=np.bool_)
    write_masks(tmp_path / "eval" / "predictions", entry, entry.expressions[0], empty)
    assert cli.main(words) == 2
    assert "nobody knows whose masks these are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("checkpoint={folder}/none", "none holds no checkpoint: name a run folder"),
        ("splits=[mevis/valid]", "no split mevis/valid here; did you mean mevis/valid_u?"),
        ("shards={folder}/none", "this folder of shards does not exist"),
        ("processes=-1", "processes=-1: "),
        ("tracking.uri=sqlite:///{folder}/none.db", "none.db: no such MLflow file"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_predicted(
    change: str, message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, change.format(folder=tmp_path)]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (tmp_path / "eval").exists()


def test_several_processes_share_the_videos_and_tell_what_stops_one(run: RunConfig, tmp_path: Path) -> None:
    splits = tuple(ShardedSplit.open(Path(run.shards) / name) for name in ("mevis/train", SPLIT))
    assert 1 <= processes_for(0, splits) <= 3
    work = Prediction(Path(run.out), splits, tmp_path / "masks", InferenceConfig())
    done = list(predict(work, 2))
    assert len(done) == 3
    due = sum(len(entry.expressions) for split in splits for entry in split.videos)
    assert sum(each.expressions for each in done) == due
    damaged = Prediction(tmp_path, splits, tmp_path / "none", InferenceConfig())
    with pytest.raises(LaunchError, match="holds no checkpoint: name a run folder"):
        list(predict(damaged, 2))


def kill_children() -> None:
    """Kill the processes of this one as soon as there are any."""
    until = time.monotonic() + 30
    while not multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.01)
    for child in multiprocessing.active_children():
        child.kill()


def test_a_process_that_dies_is_told_and_none_is_left(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    killer = threading.Thread(target=kill_children)
    killer.start()
    assert cli.main([*words, "processes=2", "splits=[mevis/train]", "record=false"]) == 2
    killer.join()
    assert "a process that predicts was killed by SIGKILL (most often for lack of memory" in capfd.readouterr().err
    assert multiprocessing.active_children() == []
