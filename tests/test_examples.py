"""The scripts in examples/ run as their users would run them."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np
import pytest
from PIL import Image

from glus.data_pipeline.datasets import table
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name: str, *words: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_segment_video_prints_a_line_for_each_frame_and_expression(tiny_demo: Path, answering_run: Path) -> None:
    frames = sorted((tiny_demo / "raw/mevis/valid_u/JPEGImages").iterdir())[0]
    printed = run_example("segment_video.py", frames, answering_run, "the red circle", "the bar")
    lines = printed.splitlines()
    count = len(list(frames.glob("*.jpg")))
    assert len(lines) == 2 * count + 2
    assert lines[0].startswith("00000  the red circle: ") and lines[0].endswith("% of the frame")
    assert lines[-1].startswith("the bar: a mask in ") and lines[-1].endswith(f" of {count} frames")


@pytest.mark.slow
def test_read_shards_needs_nothing_of_this_project(tiny_demo: Path) -> None:
    assert "glus" not in (EXAMPLES / "read_shards.py").read_text(encoding="utf-8")
    printed = run_example("read_shards.py", tiny_demo / "shards/mevis/train")
    assert ": 6 frames, " in printed and " mask pixels" in printed


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A dataset in the layout that examples/add_dataset.py reads: one video of three frames, one object."""
    split = tmp_path / "shapes" / "train"
    for folder in ("JPEGImages/first", "Annotations/first"):
        (split / folder).mkdir(parents=True)
    labels = np.zeros((48, 64), np.uint8)
    labels[8:24, 8:24] = 1
    for number in range(3):
        Image.new("RGB", (64, 48), "gray").save(split / f"JPEGImages/first/{number:05d}.jpg")
        Image.fromarray(labels).save(split / f"Annotations/first/{number:05d}.png")
    with (split / "expressions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("video", "object", "text"), ("first", "1", "the square")])
    return tmp_path


@pytest.mark.slow
def test_add_dataset_reads_its_layout(shapes: Path) -> None:
    printed = run_example("add_dataset.py", shapes, "train")
    assert "first: 3 frames of 64x48, objects ['1']" in printed and "'the square' -> object 1" in printed


def test_a_dataset_of_ones_own_becomes_shards(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = load_example("add_dataset")
    reader = table.Reader(own.SPLITS, own.annotation_file, own.read)
    monkeypatch.setattr(table, "DATASETS", MappingProxyType({**table.DATASETS, "shapes": reader}))
    split = table.read_dataset("shapes", shapes, "train")
    jobs = plan_jobs(split, shapes, tmp_path / "shards/shapes/train", 1)
    for job in jobs:
        ShardMaker().make(job)
    finish_split(split, jobs)
    [(video, frames, masks)] = load_example("read_shards").read_videos(tmp_path / "shards/shapes/train")
    assert video["expressions"][0]["text"] == "the square" and len(frames) == 3
    assert masks["1"].shape == (3, 48, 64) and masks["1"].sum() == 3 * 16 * 16
