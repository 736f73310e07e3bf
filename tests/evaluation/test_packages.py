"""Archives for the servers: their layout, nothing written before all is checked, the same bytes every time."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from glus.common.errors import EvaluationError
from glus.evaluation.predict.predictions import expression_folder, read_masks, write_masks
from glus.evaluation.results.server_archives import SERVERS, write_package
from glus.launch import cli

pytestmark = pytest.mark.slow


@pytest.fixture
def hidden(new_split, make_record):
    """Make two demo videos as a server's hidden split."""

    def make(dataset: str):
        records = []
        for number in range(2):
            record = make_record(dataset, "valid", f"demo-{number}")
            expressions = tuple(replace(exp, object_ids=(), kind="") for exp in record.expressions)
            records.append(replace(record, objects={}, expressions=expressions))
        return new_split(records)

    return make


@pytest.fixture
def written(tmp_path):
    """Random masks of every expression of a split."""

    def write(split) -> Path:
        chance = np.random.Generator(np.random.Philox(key=4))
        for entry in split.videos:
            for expression in entry.expressions:
                masks = chance.random((len(entry.frame_names), entry.height, entry.width)) < 0.1
                write_masks(tmp_path / "masks", entry, expression, masks)
        return tmp_path / "masks"

    return write


@pytest.mark.parametrize(("dataset", "top"), [("mevis", ""), ("refer_youtube_vos", "Annotations/")])
def test_the_archive_has_the_servers_layout_and_every_mask(hidden, written, tmp_path, dataset, top):
    split = hidden(dataset)
    made = write_package(split, written(split), tmp_path / "out.zip", any_size=True, progress=False)
    due = [
        f"{top}{entry.video}/{expression.id}/{name}.png"
        for entry in split.videos
        for expression in entry.expressions
        for name in entry.frame_names
    ]
    with zipfile.ZipFile(made.place) as archive:
        assert archive.namelist() == due and archive.testzip() is None
        entry = split.videos[1]
        expected = read_masks(tmp_path / "masks", entry, entry.expressions[2])
        for name, mask in zip(entry.frame_names, expected, strict=True):
            content = archive.read(f"{top}{entry.video}/{entry.expressions[2].id}/{name}.png")
            picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            assert picture.ndim == 2 and picture.dtype == np.uint8
            np.testing.assert_array_equal(picture, mask * np.uint8(255))
    assert (made.videos, made.files) == (2, len(due))


def test_the_same_masks_give_the_same_bytes_whenever_and_however_they_were_written(hidden, written, tmp_path):
    split = hidden("mevis")
    masks = written(split)
    first = write_package(split, masks, tmp_path / "1.zip", any_size=True, progress=False)
    for place in masks.rglob("*.png"):  # the same pixels in another encoding, at another time
        picture = cv2.imread(str(place), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(place), picture, (cv2.IMWRITE_PNG_COMPRESSION, 5))
    second = write_package(split, masks, tmp_path / "2.zip", any_size=True, progress=False)
    assert first.sha256 == second.sha256
    assert first.place.read_bytes() == second.place.read_bytes()


def missing(masks: Path, split) -> None:
    shutil.rmtree(expression_folder(masks, split.videos[1], split.videos[1].expressions[0]))


def stray(masks: Path, split) -> None:
    (masks / "mevis" / "valid" / "demo-0" / "999").mkdir()


def small(masks: Path, split) -> None:
    place = expression_folder(masks, split.videos[0], split.videos[0].expressions[0]) / "00010.png"
    cv2.imwrite(str(place), np.zeros((64, 95), np.uint8))


def unfinished(masks: Path, split) -> None:
    (expression_folder(masks, split.videos[0], split.videos[0].expressions[0]) / "00025.png").unlink()


def coloured(masks: Path, split) -> None:
    place = expression_folder(masks, split.videos[0], split.videos[0].expressions[0]) / "00000.png"
    cv2.imwrite(str(place), np.zeros((64, 96, 3), np.uint8))


@pytest.mark.parametrize(
    ("mutate", "told"),
    [
        (missing, r"1 of \d+ expressions of mevis/valid have no masks: demo-1/0; the server wants all"),
        (stray, r"holds 1 folders that are no video or expression of mevis/valid: demo-0/999"),
        (small, r"00010\.png: this mask is 64x95 \(height x width\), its frame is 64x96"),
        (unfinished, r"demo-0/0 is missing 1 of 6 frames, the first is 00025\.png"),
        (coloured, r"00000\.png: this mask is a PNG of mode RGB"),
    ],
)
def test_what_the_server_would_refuse_is_told_and_nothing_is_written(hidden, written, tmp_path, mutate, told):
    split = hidden("mevis")
    masks = written(split)
    mutate(masks, split)
    with pytest.raises(EvaluationError, match=told):
        write_package(split, masks, tmp_path / "out" / "p.zip", any_size=True, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_split_without_a_server_or_of_another_size_is_refused(mevis, hidden, tmp_path):
    with pytest.raises(
        EvaluationError, match="mevis/valid_u has no server that takes archives; those are mevis/valid, "
    ):
        write_package(mevis, tmp_path, tmp_path / "p.zip")
    with pytest.raises(
        EvaluationError, match=r"has 2 videos and \d+ expressions, the server of MeViS valid wants 140 and"
    ):
        write_package(hidden("mevis"), tmp_path, tmp_path / "p.zip")
    assert (SERVERS["refer_youtube_vos/valid"].videos, SERVERS["refer_youtube_vos/valid"].expressions) == (202, 834)


def test_the_command_packs_and_tells_the_digest(hidden, written, tmp_path, capsys):
    split = hidden("mevis")
    words = [f"predictions={written(split)}", f"shards={tmp_path / 'shards'}", "split=mevis/valid"]
    assert cli.main(["package", *words, f"out={tmp_path / 'p.zip'}", "any_size=true"]) == 0
    shown = capsys.readouterr().out
    assert "2 videos" in shown and "SHA-256: " in shown
    assert cli.main(["package", *words, f"out={tmp_path / 'q.zip'}"]) == 2
    assert "say any_size=true" in capsys.readouterr().err and not (tmp_path / "q.zip").exists()
