"""`glus score`: folders of masks in, metrics out, on a machine that has no torch; each mutation is told by name."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.predictions import expression_folder, write_masks
from glus.evaluation.score.video_scoring import control_partner
from glus.launch import cli

SPLIT = "mevis/valid_u"

#: What `import torch` does on a machine that lacks it.
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "deepspeed", "peft", "sam2", "mlflow", "ray"):
    sys.modules[name] = None
from glus.launch.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def split(tiny_demo: Path) -> ShardedSplit:
    return ShardedSplit.open(tiny_demo / "shards" / SPLIT)


@pytest.fixture
def masks(split: ShardedSplit, tmp_path: Path) -> Path:
    """The ground truth, moved by a pixel: good predictions that are not perfect."""
    for video, entry in enumerate(split.videos):
        for expression in entry.expressions:
            target = split.read_target(video, expression, range(len(entry.frame_names)))
            write_masks(tmp_path / "masks", entry, expression, np.roll(target, 1, axis=2))
    return tmp_path / "masks"


@pytest.fixture
def words(masks: Path, tiny_demo: Path, tmp_path: Path) -> list[str]:
    shards = tiny_demo / "shards"
    return ["score", f"predictions={masks}", f"shards={shards}", f"out={tmp_path / 'out'}", "workers=1"]


@pytest.mark.slow
def test_masks_are_scored_where_there_is_no_torch(words: list[str], masks: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "MeViS valid_u" in done.stdout and "missing predictions: 0" in done.stdout and "PARTIAL" not in done.stdout
    document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert 50 < document["summary"]["overall"]["JF"] < 100
    assert document["origin"]["predictions"] == str(masks)
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_partial_evaluation_says_so_in_every_output(
    words: list[str], split: ShardedSplit, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = split.videos[0]
    shutil.rmtree(expression_folder(masks, entry, entry.expressions[0]))
    assert cli.main(words) == 0
    shown, out = capsys.readouterr().out, tmp_path / "out"
    assert "MeViS valid_u (partial)" in shown
    name = f"{SPLIT}/{entry.video}/{entry.expressions[0].id}"
    assert f"PARTIAL: 1 predictions are missing and count as 0: {name}" in shown
    assert json.loads((out / "scores.json").read_text(encoding="utf-8"))["summary"]["partial"] is True
    assert "Partial evaluation." in (out / "report.html").read_text(encoding="utf-8")
    for file in ("scores.csv", "videos.csv"):
        with open(out / file, encoding="utf-8", newline="") as rows:
            assert [row["missing"] for row in csv.DictReader(rows)].count("1") == 1


def test_videos_that_are_not_in_the_shards_make_an_evaluation_partial(
    masks: Path, tiny_demo: Path, split: ShardedSplit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that `glus prepare` left out: a figure over the rest is not the benchmark's."""
    shutil.copytree(tiny_demo / "shards" / SPLIT, tmp_path / "shards" / SPLIT)
    manifest = tmp_path / "shards" / SPLIT / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["quarantine"] = [{"video": "broken-one", "reason": "a frame is cut", "file": None, "frame": None}]
    manifest.write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "out"
    assert cli.main(["score", f"predictions={masks}", f"shards={tmp_path}/shards", f"out={out}", "workers=1"]) == 0
    shown = capsys.readouterr().out
    assert "MeViS valid_u (partial)" in shown
    assert f"PARTIAL: 1 videos of {SPLIT} are not in the shards (quarantine): broken-one" in shown
    summary = json.loads((out / "scores.json").read_text(encoding="utf-8"))["summary"]
    assert summary["partial"] is True and summary["benchmarks"][0]["left_out"] == ["broken-one"]
    page = " ".join((out / "report.html").read_text(encoding="utf-8").split())
    assert f"Partial evaluation.</b> 1 videos of {SPLIT} are not in the shards and in no metric: broken-one." in page
    with open(out / "videos.csv", encoding="utf-8", newline="") as rows:
        assert {row["video"]: row["left_out"] for row in csv.DictReader(rows)} == {
            split.videos[0].video: "0",
            "broken-one": "1",
        }


def first_folder(split: ShardedSplit, masks: Path) -> Path:
    return expression_folder(masks, split.videos[0], split.videos[0].expressions[0])


def missing_frame(folder: Path) -> None:
    sorted(folder.iterdir())[2].unlink()


def wrong_size(folder: Path) -> None:
    place = sorted(folder.iterdir())[2]
    with Image.open(place) as image:
        image.resize((image.width + 1, image.height)).save(place)


def three_values(folder: Path) -> None:
    for place in folder.iterdir():
        with Image.open(place) as image:
            values = np.array(image)
        values[0, :2] = 0, 1
        values[-1] = 255
        Image.fromarray(values).save(place)


def turned_palette(folder: Path) -> None:
    place = sorted(folder.iterdir())[2]
    with Image.open(place) as image:
        turned = Image.fromarray((np.asarray(image) == 0).astype(np.uint8))
    turned.putpalette([255, 255, 255, 0, 0, 0])
    turned.save(place)


def too_many_pixels(folder: Path) -> None:
    Image.new("1", (13_000, 13_000)).save(sorted(folder.iterdir())[2])


def a_jpeg(folder: Path) -> None:
    place = sorted(folder.iterdir())[2]
    with Image.open(place) as image:
        image.save(place, "JPEG")


def extra_folder(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "999")


@pytest.mark.parametrize(
    ("mutate", "told"),
    [
        (missing_frame, "{folder} is missing 1 of 6 frames, the first is 00002.png"),
        (wrong_size, "{folder}/00002.png: this mask is 48x65 (height x width), its frame is 48x64"),
        (three_values, "holds the values [0, 1, 255]; a mask holds only 0 and 255, or only 0 and 1"),
        (turned_palette, "{folder}/00002.png is an indexed PNG whose index 0 shows (255, 255, 255), index 1 (0, 0, 0)"),
        (too_many_pixels, "{folder}/00002.png: 13000x13000 (height x width) are 169,000,000 pixels"),
        (a_jpeg, "{folder}/00002.png: cannot be read as PNG (it is a JPEG, whatever its name says)"),
        (extra_folder, "holds 1 folders that are no video or expression of mevis/valid_u: {video}/999"),
    ],
)
def test_a_mutated_folder_is_told_by_name(
    mutate: Callable[[Path], None],
    told: str,
    words: list[str],
    split: ShardedSplit,
    masks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = first_folder(split, masks)
    mutate(folder)
    assert cli.main(words) == 2
    *_, message = capsys.readouterr().err.splitlines()
    assert told.format(folder=folder, video=split.videos[0].video) in message and str(masks) in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_masks_of_other_forms_score_the_same(
    words: list[str], split: ShardedSplit, masks: Path, tmp_path: Path
) -> None:
    assert cli.main(words) == 0
    due = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")
    forms = [
        Image.fromarray,
        lambda on: Image.fromarray(on.astype(np.uint8)),
        lambda on: Image.fromarray(on.astype(np.uint8) * 255).convert("P"),
    ]
    for number, place in enumerate(sorted(masks.rglob("*.png"))):
        with Image.open(place) as image:
            on = np.asarray(image) == 255
        forms[number % 3](on).save(place)
    assert cli.main(words) == 0
    assert (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8") == due


def test_exchanged_ids_are_told_by_name_and_score_worse(
    words: list[str], split: ShardedSplit, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    assert "were ids exchanged" not in capsys.readouterr().out
    good = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["summary"]["overall"]["JF"]
    entry = split.videos[0]
    one, other = next((exp, p) for exp in entry.expressions if (p := control_partner(entry, exp)) is not None)
    first, second = (expression_folder(masks, entry, exp) for exp in (one, other))
    first.rename(masks / "aside")
    second.rename(first)
    (masks / "aside").rename(second)
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "each fit the other's target: were ids exchanged?" in shown
    assert f"{SPLIT}/{entry.video}/{one.id} with {other.id}" in shown
    assert json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["summary"]["overall"]["JF"] < good
    assert "were ids exchanged?" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("predictions={folder}/none", "none is no folder: name the one above DATASET/SPLIT"),
        ("predictions={folder}", "holds no DATASET/SPLIT that"),
        ("splits=[mevis/train]", "no predictions for mevis/train"),
        ("workers=-1", "workers=-1: give 1 or more"),
    ],
)
def test_what_cannot_be_scored_is_told(
    change: str, message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, change.format(folder=tmp_path)]) == 2
    assert message in capsys.readouterr().err
