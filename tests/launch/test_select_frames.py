"""`glus select-frames`: a selector and shards in, a file of key frames out, whatever was killed on the way."""

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch

from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.key_frames import KeyFrames, check_key_frames
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.select.selection_rules import best_frame
from glus.evaluation.select.video_scores import scores_of_video
from glus.launch import cli
from tests.untrained import SELECTOR, write_checkpoint

SPLITS = ("mevis/train", "mevis/valid_u")


@pytest.fixture(scope="module")
def selector(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_demo, tmp_path_factory.mktemp("selector") / "run", *SELECTOR)


@pytest.fixture
def words(selector: Path, tiny_demo: Path, tmp_path: Path) -> list[str]:
    places = [f"checkpoint={selector}", f"shards={tiny_demo}/shards", f"out={tmp_path}/key_frames.json"]
    return ["select-frames", *places, f"splits=[{', '.join(SPLITS)}]", "processes=1"]


@pytest.fixture
def splits(tiny_demo: Path) -> list[ShardedSplit]:
    return [ShardedSplit.open(tiny_demo / "shards" / name) for name in SPLITS]


def files_of(folder: Path) -> dict[str, bytes]:
    return {place.name: place.read_bytes() for place in (folder / "key_frames.json", folder / "key_frames.parquet")}


def test_each_expression_gets_its_best_frame_and_evaluation_reads_it(
    words: list[str], selector: Path, splits: list[ShardedSplit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    expressions = sum(len(entry.expressions) for split in splits for entry in split.videos)
    shown = capsys.readouterr().out
    assert f"key frames of {expressions} expressions of 3 videos" in shown
    file = tmp_path / "key_frames.json"
    assert f"written: {file}\nwritten: {tmp_path}/key_frames.parquet" in shown
    assert check_key_frames(file, splits, False) == (expressions, expressions)
    loaded, keys, cpu = ModelSource.find(selector).load(torch.device("cpu")), KeyFrames.read(file), torch.device("cpu")
    rows = parquet.read_table(tmp_path / "key_frames.parquet").to_pylist()
    for split in splits:
        for number, entry in enumerate(split.videos):
            texts = [expression.text for expression in entry.expressions]
            names, frames = entry.frame_names, split.read_frames(number, range(len(entry.frame_names)))
            due = scores_of_video(loaded, frames.__getitem__, len(names), texts, entry.video, 16, cpu)
            for expression, scores in zip(entry.expressions, due, strict=True):
                assert keys.position(entry.video, expression.id, names) == best_frame(scores.tolist())
                of_expression, rows = rows[: len(names)], rows[len(names) :]
                where = (split.dataset, split.split, entry.video, expression.id)
                assert [tuple(row.values())[:5] for row in of_expression] == [(*where, name) for name in names]
                assert [row["score"] for row in of_expression] == scores.tolist()
    assert rows == []


def test_what_is_scored_is_kept_and_what_is_not_is_scored(words: list[str], tmp_path: Path) -> None:
    assert cli.main(words) == 0
    made = files_of(tmp_path)
    first, *others = sorted((tmp_path / "key_frames.scores" / "scores").rglob("*.json"))
    first.unlink()
    times = {each: each.stat().st_mtime_ns for each in others}
    for place in made:
        (tmp_path / place).unlink()
    assert cli.main(words) == 0
    assert first.is_file() and {each: each.stat().st_mtime_ns for each in others} == times
    assert files_of(tmp_path) == made


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks)):
        monkeypatch.setenv(name, str(value))


def test_ranks_share_the_videos_and_the_first_writes_what_one_process_would(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, f"out={tmp_path}/one/key_frames.json"]) == 0
    ranks = [*words, "processes=0", "wait_minutes=0.001"]
    as_rank(monkeypatch, 0, 2)
    assert cli.main(ranks) == 2
    assert "2 videos are without scores and none came for 0.001 minutes" in capsys.readouterr().err
    assert not (tmp_path / "key_frames.json").exists()
    as_rank(monkeypatch, 1, 2)
    assert cli.main(ranks) == 0
    assert "rank 1 of 2: 2 videos scored; rank 0 writes the key frames" in capsys.readouterr().out
    as_rank(monkeypatch, 0, 2)
    assert cli.main(ranks) == 0
    assert files_of(tmp_path) == files_of(tmp_path / "one")


def test_scores_of_another_selector_are_refused_or_made_again(
    words: list[str], tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    made = files_of(tmp_path)
    other = [*words, f"checkpoint={write_checkpoint(tiny_demo, tmp_path / 'other', *SELECTOR, seed=1)}"]
    capsys.readouterr()
    assert cli.main(other) == 2
    told = capsys.readouterr().err
    assert "key_frames.scores/scores holds scores of another checkpoint" in told and "say fresh=true" in told
    assert cli.main([*words, "precision=bf16"]) == 2
    assert "was scored with other settings (precision fp32, now bf16)" in capsys.readouterr().err
    assert files_of(tmp_path) == made
    assert cli.main([*other, "fresh=true"]) == 0
    assert files_of(tmp_path)["key_frames.parquet"] != made["key_frames.parquet"]


def changed(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "0" * 64}, "scores of other weights (000000000000, now "),
        ({"shards": "0" * 64}, "scores of other shards (000000000000, now "),
        ({"scores": {"0": [1.0]}}, "does not have the expressions and frames of this video"),
        ({"scores": {"0": ["high"]}}, "remove this file; the same command scores the video again"),
    ],
)
def test_a_record_that_does_not_belong_here_is_told(
    fields: dict[str, object], message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    file = next((tmp_path / "key_frames.scores" / "scores").rglob("*.json"))
    changed(file, **fields)
    capsys.readouterr()
    assert cli.main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"glus select-frames: {file}: ") and message in last


def test_a_model_that_is_no_selector_is_refused(
    words: list[str], tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glus = write_checkpoint(tiny_demo, tmp_path / "glus")
    assert cli.main([*words, f"checkpoint={glus}"]) == 2
    told = capsys.readouterr().err
    assert f"checkpoint={glus}: this is a model of method glus, not a key frame selector" in told
    assert not (tmp_path / "key_frames.scores").exists()


def test_a_selector_whose_sizes_do_not_fit_its_weights_is_refused(
    words: list[str], tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from glus.training.checkpoints.integrity import note_digests

    path = write_checkpoint(tiny_demo, tmp_path / "run", *SELECTOR)
    settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
    settings["model"]["language"]["intermediate_size"] = 96
    (path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    note_digests(path, 0)
    assert cli.main([*words, f"checkpoint={path}"]) == 2
    told = capsys.readouterr().err
    assert "mlp.down_proj" in told or "mlp.gate_proj" in told
    assert not (tmp_path / "key_frames.scores").exists() and not (tmp_path / "key_frames.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("out={folder}/keys", "keys: name a file that ends in .json"),
        ("checkpoint={folder}/none", "none holds no checkpoint: name a run folder"),
        ("splits=[mevis/valid]", "no split mevis/valid here; did you mean mevis/valid_u?"),
        ("expressions_together=0", "expressions_together=0: give 1 or more"),
        ("processes=-1", "processes=-1: "),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_scored(
    change: str, message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, change.format(folder=tmp_path)]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


#: Loads the selector once and forks: each child is killed at a moment of its own. One thread, so that forking is safe.
KILLS = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from collections.abc import Iterator
from pathlib import Path
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.worklist import work_list
from glus.evaluation.select.selection_folder import left_to_score
from glus.launch.commands.select_frames import Scoring

checkpoint, shards, folder = map(Path, sys.argv[1:4])
splits = tuple(ShardedSplit.open(shards / name) for name in sys.argv[4:])
items, source = work_list(splits), ModelSource.find(checkpoint)
done = Scoring(source, splits, folder, source.digest(), "fp32", 16, items).worker(0)

def rest():
    for item in left_to_score(items, splits, folder):
        done(item)

def state():
    return {place: place.stat().st_mtime_ns for place in (folder / "scores").rglob("[!.]*.json")}

began = time.monotonic()
done(items[0])
longest = 1.5 * (time.monotonic() - began)
for place in state():
    place.unlink()
chance = random.Random(0)
for kill in range(20):
    before = state()
    child = os.fork()
    if child == 0:
        try:
            rest()
        finally:
            os._exit(0)
    time.sleep(chance.uniform(0, longest if kill % 4 == 3 else longest / 8))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    after = state()
    assert all(after.get(place) == seen for place, seen in before.items()), "a finished video was scored again"
print(len(items), len(left_to_score(items, splits, folder)))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_twenty_kills_change_nothing(
    words: list[str], selector: Path, tiny_demo: Path, tmp_path: Path, warm_python: Path
) -> None:
    """benchmarks/selecting_kills.py kills the command itself."""
    assert cli.main([*words, f"out={tmp_path}/one/key_frames.json"]) == 0
    scores = tmp_path / "key_frames.scores"
    command = [str(warm_python), "-c", KILLS, str(selector), f"{tiny_demo}/shards", str(scores), *SPLITS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.copy(tmp_path / "one" / "key_frames.scores" / "selection.json", scores)
    assert cli.main(words) == 0
    assert files_of(tmp_path) == files_of(tmp_path / "one")
    left_behind = {place.suffix for place in scores.rglob("*") if place.is_file() and not place.name.startswith(".")}
    assert left_behind == {".json"}
