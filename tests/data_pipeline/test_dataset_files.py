"""Videos and frames of datasets as files: endings of any case, orientations against masks, frames that are lost."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.data_pipeline.datasets.table import read_dataset
from tests.barcodes import Coded, copy_packets, write_coded


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def store_as_video(raw, images: str, ending: str = "mp4", **how) -> Path:
    """The frames of video "two" as a video file."""
    folder = raw.root / images
    shutil.rmtree(folder / "two")
    drawn = (
        cv2.cvtColor(cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        for each in raw.videos[1].jpegs
    )
    if how.get("turned") == (90, False, False):
        drawn = (np.ascontiguousarray(np.rot90(picture, -1)) for picture in drawn)
    return write_coded(folder / f"two.{ending}", drawn, Coded(options={"bf": "0", "g": "1"}, **how))


def test_video_files_and_frames_are_found_whatever_the_case_of_their_ending(raw):
    store_as_video(raw, "mevis/train/JPEGImages").rename(raw.root / "mevis/train/JPEGImages/two.MP4")
    frames = raw.root / "mevis/train/JPEGImages/one.video"
    (frames / "00005.jpg").rename(frames / "00005.Jpg")
    (frames / "._00000.jpg").write_bytes(b"\0\5\x16\7")
    edit(
        raw.root / "mevis/train/meta_expressions.json",
        lambda content: content["videos"]["one.video"].update(frames=["00000.jpeg", "00005", "00010.JPG"]),
    )
    edit(raw.root / "mevis/train/mask_dict.json", lambda masks: masks.update({k: v[:3] for k, v in masks.items()}))
    edit(
        raw.root / "mevis/train/meta_expressions.json",
        lambda content: content["videos"]["two"].update(frames=["00000", "00001", "00002"]),
    )
    source = read_dataset("mevis", raw.root, "train")
    record = source.record("one.video")
    assert record.frames.names == ("00000", "00005", "00010")
    assert [record.frames.read_bytes(index) for index in range(3)] == list(raw.videos[0].jpegs[:3])
    assert source.record("two").frames.names == ("00000", "00001", "00002")


def test_masks_are_found_whatever_the_case_of_their_ending(raw):
    masks = raw.root / "DAVIS17/train/Annotations/two"
    (masks / "00003.png").rename(masks / "00003.PNG")
    (masks / "._00000.png").write_bytes(b"\0\5\x16\7")
    assert set(read_dataset("ref_davis17", raw.root, "train").record("two").objects) == {"1", "4"}
    shutil.copy(masks / "00000.png", masks / "00000.Png")
    with pytest.raises(DataError, match=r"several files are called 00000 \(00000\.Png and 00000\.png\); keep one"):
        read_dataset("ref_davis17", raw.root, "train").record("two")


def test_a_turned_video_is_noted_where_its_masks_fit_what_is_shown(raw):
    store_as_video(raw, "mevis/train/JPEGImages", turned=(90, False, False))
    record = read_dataset("mevis", raw.root, "train").record("two")
    assert (record.height, record.width) == (32, 48)
    assert "two.mp4: carries an orientation (turned by 270 degrees clockwise)" in record.frames.notes[0]


@pytest.mark.parametrize(("name", "folder"), [("mevis", "mevis/train"), ("ref_davis17", "DAVIS17/train")])
def test_a_turned_video_is_refused_where_its_masks_fit_what_is_stored(raw, name, folder):
    store_as_video(raw, f"{folder}/JPEGImages", turned=(270, False, False))
    with pytest.raises(DataError, match=r"carry an orientation \(turned by 90 .* masks have the size of the other"):
        read_dataset(name, raw.root, "train").record("two")
    assert read_dataset(name, raw.root, "train").record("one.video").frames.notes == ()


@pytest.mark.parametrize("value", [3, 6])
def test_frames_with_an_exif_orientation_are_stored_as_they_are_and_noted(raw, value):
    folder = raw.root / "mevis/train/JPEGImages/two"
    exif = Image.Exif()
    exif[0x0112] = value
    for path in folder.iterdir():
        Image.open(path).save(path, format="JPEG", exif=exif)
    record = read_dataset("mevis", raw.root, "train").record("two")
    contents = [record.frames.read_bytes(index) for index in range(5)]
    assert contents == [path.read_bytes() for path in sorted(folder.iterdir())] and record.height == 32
    assert f"{folder}: 5 of 5 frames carry an EXIF orientation (00000: turned by " in record.frames.notes[0]
    # Masks drawn on what viewers show do not fit.
    for path in folder.iterdir():
        picture = Image.open(path).rotate(90, expand=True)
        exif[0x0112] = 6
        picture.save(path, format="JPEG", exif=exif)
    with pytest.raises(DataError, match=r"carry an orientation .* taken as 48x32 .* masks have the size of the other"):
        read_dataset("mevis", raw.root, "train").record("two")


def test_a_lost_frame_is_refused_where_the_annotation_lists_it_and_noted_where_it_does_not(raw):
    path = store_as_video(raw, "DAVIS17/train/JPEGImages")
    copy_packets(
        path, path.with_name("cut.mp4"), lambda number, content: bytes(len(content)) if number == 2 else content
    )
    path.with_name("cut.mp4").rename(path)
    masks = raw.root / "DAVIS17/train/Annotations/two"
    for number, name in enumerate(raw.videos[1].frame_names):
        (masks / f"{name}.png").rename(masks / f"new-{number:05d}.png")
    for number in range(5):
        (masks / f"new-{number:05d}.png").rename(masks / f"{number:05d}.png")
    record = read_dataset("ref_davis17", raw.root, "train").record("two")
    assert record.frames.names == ("00000", "00001", "00003", "00004")
    assert "lost: frame 2" in record.frames.notes[0]
    due = raw.videos[1].rles("4")
    assert record.objects["4"] == [due[0], due[1], due[3], due[4]]
    annotation = raw.root / "DAVIS17/meta_expressions/train/meta_expressions.json"
    edit(annotation, lambda content: content["videos"]["two"].update(frames=[f"{number:05d}" for number in range(5)]))
    with pytest.raises(DataError, match=r"two\.mp4: 1 of the 5 frames that the annotation lists cannot be decoded"):
        read_dataset("ref_davis17", raw.root, "train").record("two")
