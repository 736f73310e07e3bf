"""`glus evaluate`: a checkpoint in, metrics on disk and in tracking; what is there is kept, what is foreign refused."""

import json
import multiprocessing
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glus.common.errors import LaunchError
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.predictions import expression_folder, write_masks
from glus.evaluation.predict.worklist import EVALUATE, counted, exclusive_out, left, work_list
from glus.launch import cli
from glus.launch.commands.predict import Prediction
from glus.launch.commands.work_processes import processes_for, work_through
from glus.model.released.release_sums import write_sums
from glus.training.checkpoints.integrity import DIGESTS, note_digests
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_runs
from glus.training.train import train
from tests.untrained import write_checkpoint
from tests.warm.starting import started_by

pytestmark = pytest.mark.slow

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
    written = [line.removeprefix("written: ") for line in shown.splitlines() if line.startswith("written: ")]
    files = ("report.html", "scores.json", "scores.csv", "videos.csv", "frames.parquet")
    assert written == [str(out / name) for name in files]
    assert (out / "report.html").is_file()
    [record] = find_runs(run.tracking)
    overall = document["summary"]["overall"]
    assert record.history["eval/overall/JF"] == ((0, pytest.approx(overall["JF"])),)
    assert record.metrics["eval/seconds_per_expression"] > 0 and record.metrics["eval/tokens_per_expression"] > 10
    assert "tokens per expression: " in shown
    assert record.metrics["eval/control/drop"] == pytest.approx(overall["drop"])
    assert {f"eval/{SPLIT}/JF", "eval/kind/motion/JF", "eval/control/JF", "eval/partial"} <= record.metrics.keys()
    assert record.tags["evaluation.step-000000.partial"] == "False"
    artifacts = Path(run.out).parent / "mlartifacts" / record.run_id / "artifacts" / "evaluation" / "step-000000"
    names = sorted(each.name for each in artifacts.iterdir())
    assert names == ["frames.parquet", "report.html", "scores.csv", "scores.json", "videos.csv"]
    recorded = (artifacts / "report.html").read_text(encoding="utf-8")
    assert "data:image/" in recorded and 'src="overlays' not in recorded, "MLflow's page shows it without its folder"
    weights = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["weights"]
    assert record.tags["evaluation.step-000000.weights"] == weights[:12]
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
    # What a process leaves that is killed while it writes.
    unfinished = kept.parent / f".{second.id}.abc.part"
    unfinished.mkdir()
    (unfinished / "00000.png").write_bytes(b"cut")
    assert cli.main(quick) == 0
    assert not unfinished.exists()
    assert {each: each.stat().st_mtime_ns for each in kept.iterdir()} == times
    assert expression_folder(masks, split.videos[0], second).is_dir()


def foreign_checkpoint(run: RunConfig, folder: Path) -> Path:
    """The same run with a weight that differs."""
    copied = folder / "other"
    shutil.copytree(Path(run.out) / "checkpoints" / "step-000000", copied)
    with open(copied / "model.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(0.123).tobytes())
    note_digests(copied, 0)
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


def test_a_file_of_key_frames_is_followed_and_kept_with_the_predictions(
    words: list[str], run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [entry] = ShardedSplit.open(Path(run.shards) / SPLIT).videos
    first = entry.expressions[0]
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({f"{entry.video}_{first.id}": 4, "another_0": 99}), encoding="utf-8")
    strict = [*words, "report=false", "record=false", f"inference.key_frames={keys}"]
    assert cli.main(strict) == 2
    told = capsys.readouterr().err
    second = f"{SPLIT} {entry.video}_{entry.expressions[1].id}"
    count = len(entry.expressions)
    assert f"does not name {count - 1} of {count} expressions, the first is {second}: select key" in told
    given = [strict[0], "inference.missing_key_frames=first", *strict[1:]]
    assert cli.main(given) == 0
    assert f"key frames: 1 of {len(entry.expressions)} expressions have one" in capsys.readouterr().out
    assert cli.main(given) == 0
    assert cli.main(given[:-1]) == 2
    assert "was predicted with other settings (key_frames " in capsys.readouterr().err
    keys.write_text(json.dumps({f"{entry.video}_{first.id}": 99}), encoding="utf-8")
    assert cli.main(given) == 2
    assert f"keys.json: {entry.video}_{first.id} names frame 99, which video" in capsys.readouterr().err
    keys.write_text(json.dumps({"another_0": 99}), encoding="utf-8")
    assert cli.main(given) == 2
    assert f"keys.json names no expression of {SPLIT}: wanted is" in capsys.readouterr().err
    frames = {f"{entry.video}_{each.id}": 4 * (each is first) for each in entry.expressions}
    keys.write_text(json.dumps(frames), encoding="utf-8")
    assert cli.main([*strict, f"out={tmp_path}/complete"]) == 0
    assert f"key frames: {count} of {count} expressions have one\n" in capsys.readouterr().out


def test_a_released_glus_is_evaluated_as_a_checkpoint_is(
    words: list[str], run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = tmp_path / "my-glus"
    assert cli.main(["export", run.out, "--out", str(released)]) == 0
    given = [*words, f"checkpoint={released}", "report=false"]
    assert cli.main(given) == 0
    shown = capsys.readouterr().out
    assert "tensors taken (GLUS)" in shown and "not recorded: no tracked run made this model" in shown
    out = tmp_path / "eval"
    kept = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert (kept["checkpoint"], kept["step"]) == (str(released), 0)
    assert json.loads((out / "scores.json").read_text(encoding="utf-8"))["origin"]["title"] == "my-glus"
    # Its masks are its own: neither other weights nor another precision are taken for it.
    assert cli.main([*given, "inference.precision=bf16"]) == 2
    assert "was predicted with other settings (precision fp32, now bf16)" in capsys.readouterr().err
    sizes = json.loads((released / "glus_model.json").read_text(encoding="utf-8"))
    sizes["segmenter"]["multimask_fallback"] ^= True
    (released / "glus_model.json").write_text(json.dumps(sizes), encoding="utf-8")
    write_sums(released)
    assert cli.main(given) == 2
    assert "holds predictions of another checkpoint" in capsys.readouterr().err


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


def test_several_processes_share_the_videos_and_report_what_stops_one(
    run: RunConfig, tmp_path: Path, warm_python: Path
) -> None:
    splits = tuple(ShardedSplit.open(Path(run.shards) / name) for name in ("mevis/train", SPLIT))
    items = work_list(splits)
    assert 1 <= processes_for(0, len(items)) <= 3
    work = Prediction(ModelSource.find(Path(run.out)), splits, tmp_path, InferenceConfig(precision="fp32"), items)
    work_through(work, 2)
    assert len(items) == 3 and left(items, splits, tmp_path / "predictions") == ()
    assert counted(tmp_path, splits).frames == sum(
        len(entry.expressions) * len(entry.frame_names) for split in splits for entry in split.videos
    )
    gone = replace(work.source, folder=tmp_path / "gone")
    with (
        started_by(warm_python),
        pytest.raises(LaunchError, match=r"gone/config\.json: no such config of a run: correct the path"),
    ):
        work_through(replace(work, source=gone, out=tmp_path / "none"), 2)
    assert multiprocessing.active_children() == []


def test_a_tokenizer_that_cannot_be_read_leaves_no_records(
    words: list[str], tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tiny_demo, tmp_path / "run")
    shutil.rmtree(checkpoint / DIGESTS)
    for file in (checkpoint / "tokenizer").iterdir():
        file.write_bytes(b"no tokenizer")
    assert cli.main([*words, f"checkpoint={checkpoint}", "record=false"]) == 2
    assert "\nglus evaluate: " in capsys.readouterr().err and not (tmp_path / "eval").exists()


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks)):
        monkeypatch.setenv(name, str(value))


def test_ranks_share_the_list_and_the_first_scores_what_all_of_them_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [*words, "splits=[mevis/train, mevis/valid_u]", "processes=0", "record=false", "report=false"]
    out = tmp_path / "eval"
    as_rank(monkeypatch, 1, 2)
    assert cli.main(both) == 0
    assert "rank 1 of 2: 2 videos predicted; rank 0 scores" in capsys.readouterr().out
    assert not (out / "scores.json").exists()
    as_rank(monkeypatch, 0, 2)
    assert cli.main(both) == 0
    document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert not document["summary"]["partial"]
    listed = json.loads((out / "work.json").read_text(encoding="utf-8"))
    assert listed["ranks"] == 2 and sorted(item["rank"] for item in listed["items"]) == [0, 1, 1]
    kept = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert kept["frames"] == sum(each["frames"] for each in document["expressions"])


def test_the_first_rank_tells_whose_masks_do_not_come(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_rank(monkeypatch, 0, 2)
    both = [*words, "splits=[mevis/train, mevis/valid_u]", "processes=0", "record=false", "wait_minutes=0.001"]
    assert cli.main(both) == 2
    told = capsys.readouterr().err
    assert "2 videos are without masks and none came for 0.001 minutes, the first is mevis/train/" in told
    assert "a rank was killed or stopped. The same command skips finished videos and goes on" in told
    assert cli.main([*both, "fresh=true"]) == 2
    assert "remove `out` first" in capsys.readouterr().err


def test_two_evaluations_do_not_write_into_one_folder(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval").mkdir()
    with exclusive_out(tmp_path / "eval", 0, 1, EVALUATE):
        assert cli.main(words) == 2
    assert "another glus evaluate is at work in" in capsys.readouterr().err


#: Loads the model once and forks: each child is killed at a moment of its own. One thread, so that forking is safe.
KILLS = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.worklist import left, work_list
from glus.launch.commands import predict as launch_predict

checkpoint, shards, masks, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
splits = tuple(ShardedSplit.open(shards / name) for name in ("mevis/train", "mevis/valid_u"))
items = work_list(splits)
source, config = ModelSource.find(checkpoint), InferenceConfig(precision="fp32")
work = launch_predict.Prediction(source, splits, masks.parent, config, items)
one = launch_predict.Predictor(work, 0)
chance, kills = random.Random(seed), 0

def state():
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in masks.rglob("*.png") if "/." not in str(p)}

def whole_run():
    for item in left(items, splits, masks):
        one.predict(item)

while kills < 20:
    before = state()
    child = os.fork()
    if child == 0:
        try:
            whole_run()
        finally:
            os._exit(0)
    time.sleep(chance.uniform(0.0, float(sys.argv[5])))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    after = state()
    assert all(after.get(name) == seen for name, seen in before.items()), "an item that was done was written again"
whole_run()
print(kills, len(left(items, splits, masks)))
"""


def test_twenty_kills_change_no_figure_and_repeat_and_lose_no_item(
    words: list[str], run: RunConfig, tmp_path: Path, warm_python: Path
) -> None:
    both = [*words, "splits=[mevis/train, mevis/valid_u]", "record=false", "report=false"]
    began = time.monotonic()
    assert cli.main(both) == 0
    seconds = time.monotonic() - began
    killed = tmp_path / "killed"
    command = [str(warm_python), "-c", KILLS, run.out, run.shards, str(killed / "predictions"), "5", f"{seconds / 8}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["20", "0"]
    shutil.copy(tmp_path / "eval" / "predictions.json", killed)
    assert cli.main([*both, f"out={killed}"]) == 0
    first, second = (
        json.loads((folder / "scores.json").read_text(encoding="utf-8")) for folder in (tmp_path / "eval", killed)
    )
    assert first["expressions"] == second["expressions"] and first["summary"] == second["summary"]
    visible = [each for each in (killed / "predictions").rglob("*.png") if "/." not in str(each)]
    assert len(visible) == sum(each["frames"] for each in first["expressions"])


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
    assert "a process that predicts was killed by SIGKILL (most often out of memory" in capfd.readouterr().err
    assert multiprocessing.active_children() == []
