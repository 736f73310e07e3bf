"""Order and endings of names: numbers count as numbers, endings whatever their case, nothing is guessed."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.data_pipeline.raw.frame_names import VideoPlaces, frame_order, split_ending
from glus.data_pipeline.raw.frames import FrameFolder
from glus.evaluation.segment.clip import open_clip

JPEG = cv2.imencode(".jpg", np.full((16, 24, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    "names",
    [
        ["0", "9", "10", "100"],
        [f"frame{number}" for number in range(1, 13)],
        ["frame_9998", "frame_9999", "frame_10000"],
        ["img-0001", "img-0002", "img-0010"],
        ["clip2_f1", "clip2_f2", "clip2_f10"],
        ["Frame1", "frame2", "FRAME10"],
        ["2024-01-02_10-59-59", "2024-01-02_11-00-00", "2024-01-03_00-00-01"],
        ["20240101T105959", "20240101T110000"],
        ["t1.05", "t1.15", "t1.25"],
        ["a", "b", "c"],
        ["f1 1", "f2 2", "f10 10"],
        ["１", "２", "９", "１０"],
        ["frame٢", "frame٣", "frame١٠"],
        ["img (1)", "img (2)", "img (10)"],
        ["frame-1", "frame-2", "frame-10"],
        ["view_a_left", "view_b_left"],
        ["before"],
    ],
)
def test_names_are_ordered_by_their_number(names: list[str]) -> None:
    random = np.random.Generator(np.random.Philox(1))
    for _ in range(5):
        assert frame_order(list(random.permutation(names)), "x") == tuple(names)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["1", "01"], "have the same number"),
        (["frame_1", "frame_2", "frame_002"], "have the same number"),
        (["a1", "b2"], "differ in more than their numbers"),
        (["00000", "cover"], "differ in more than their numbers"),
        (["1", "1b"], "differ in more than their numbers"),
        (["-1", "0", "1"], "differ in more than their numbers"),
        (["a10b2", "a2b10"], "have several counters"),
        (["cam1_frame1", "cam1_frame2", "cam2_frame1"], "have several counters"),
        (["1_10", "2_9"], "have several counters"),
        (["0.5", "0.25"], "are fractions of different length"),
        (["a", "B", "c"], "differ in upper and lower case"),
        (["before", "later", "after"], "have no number"),
        (["y", "z", "aa"], "have no number"),
        (["①", "②", "⑩"], "have no number"),
        (["-3", "-2", "-1"], "have a sign or a dash before the number"),
        (["t=-3", "t=-2"], "have a sign or a dash before the number"),
        (["0,5", "0,25"], "are fractions of different length"),
        (["31-12-2023", "01-01-2024"], "are dates that do not begin with the year"),
        (["12.31.2023", "01.01.2024"], "are dates that do not begin with the year"),
        (["a1b3c1", "a2b2c2"], "have several counters"),
    ],
)
def test_names_with_two_orders_are_refused(names: list[str], reason: str) -> None:
    for given in (names, names[::-1]):
        with pytest.raises(DataError, match=f"^x: the order of its frames is not clear: .* and .* {reason}"):
            frame_order(given, "x")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_folders_are_read_in_the_order_of_their_numbers(ending: str, tmp_path: Path) -> None:
    for number in range(1, 13):
        picture = np.full((16, 24, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"frame{number}.{ending}"), picture)
    clip = open_clip(tmp_path, tmp_path / "scratch")
    assert clip.frame_names == tuple(f"frame{number}" for number in range(1, 13))
    assert [round(clip.read(index).mean() / 20) for index in range(12)] == list(range(1, 13))


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("00000.jpg", ("00000", ".jpg")),
        ("00000.Jpg", ("00000", ".Jpg")),
        ("a.b.JPEG", ("a.b", ".JPEG")),
        ("._00000.jpg", None),
        (".jpg", None),
        ("Thumbs.db", None),
        ("00000.jpg.part", None),
        ("00000jpg", None),
    ],
)
def test_an_ending_is_known_whatever_its_case(name: str, due: tuple[str, str] | None) -> None:
    assert split_ending(name, (".jpg", ".jpeg")) == due


def test_frames_of_all_cases_are_read_and_files_of_the_system_passed_over(tmp_path: Path) -> None:
    for name in ("0.jpg", "1.Jpg", "2.JPG", "3.jPeG"):
        (tmp_path / name).write_bytes(JPEG)
    for name in ("._0.jpg", "._1.Jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert (
        FrameFolder(tmp_path).names == ("0", "1", "2", "3") and FrameFolder(tmp_path, ["2", "3"]).read_bytes(1) == JPEG
    )
    assert open_clip(tmp_path, tmp_path / "scratch").frame_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("names", [None, ["0", "1"]])
def test_a_name_with_two_endings_is_refused_with_both_files(names: list[str] | None, tmp_path: Path) -> None:
    for name in ("0.jpg", "1.jpg", "0.JPEG"):
        (tmp_path / name).write_bytes(JPEG)
    with pytest.raises(DataError, match=r"several files are called 0 \(0\.JPEG and 0\.jpg\); keep one"):
        FrameFolder(tmp_path, names).read_bytes(0)


def test_a_video_file_is_found_whatever_its_endings_case(tmp_path: Path) -> None:
    for name in ("clip.MP4", "two.Mkv", "two.mp4", "._clip.mp4", "folder.mp4", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.b.WEBM").touch()
    os.symlink("nowhere", tmp_path / "dangling")
    places = VideoPlaces(tmp_path)
    assert places.one("clip") == tmp_path / "clip.MP4" and places.one("folder") == tmp_path / "folder"
    assert places.one("below/a.b") == tmp_path / "below" / "a.b.WEBM"
    assert places.one("notes") is None and places.one("dangling") == tmp_path / "dangling"
    with pytest.raises(DataError, match=r"several files are called two \(two\.Mkv and two\.mp4\); keep one"):
        places.one("two")


def test_pngs_of_all_cases_are_frames(tmp_path: Path) -> None:
    for name in ("0.png", "1.Png", "2.PNG"):
        Image.new("RGB", (24, 16)).save(tmp_path / name, format="PNG")
    (tmp_path / "._0.png").write_bytes(b"\0\5\x16\7")
    assert open_clip(tmp_path, tmp_path / "scratch").frame_names == ("0", "1", "2")
