"""A video of one's own: opened as far as it goes, read one frame at a time."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.evaluation.segment.clip import open_clip


def write_frames(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        picture = np.full((16, 24, 3), 40 * index, np.uint8)
        (folder / f"{5 * index}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    return folder


def test_a_folder_is_read_in_place_and_in_times_order(tmp_path: Path) -> None:
    clip = open_clip(write_frames(tmp_path / "a.b", 4), tmp_path / "scratch")
    assert (clip.name, len(clip), clip.promised, clip.rate, clip.size) == ("a.b", 4, 4, 0, (16, 24))
    assert clip.frame_names == ("0", "5", "10", "15")
    assert [round(clip.read(index).mean() / 40) for index in (3, 0, 2)] == [3, 0, 2]
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(("given", "name"), [(".", "inner"), ("../inner", "inner"), (".hidden", "hidden")])
def test_a_clip_is_called_as_its_folder(given: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "inner", 1)
    write_frames(tmp_path / "inner" / ".hidden", 1)
    monkeypatch.chdir(tmp_path / "inner")
    assert open_clip(Path(given), tmp_path / "scratch").name == name


def test_a_grey_frame_is_read_as_colours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(cv2.imencode(".jpg", np.full((16, 24), 90, np.uint8))[1].tobytes())
    frame = open_clip(tmp_path / "a", tmp_path / "scratch").read(0)
    assert frame.shape == (16, 24, 3) and abs(int(frame.mean()) - 90) <= 1


def test_a_folder_of_png_frames_is_read_to_the_bit_in_whatever_kind_of_png(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.Philox(1))
    picture = Image.fromarray(random.integers(0, 256, (16, 24, 3), np.uint8))
    kinds = {"1": picture, "2": picture.convert("RGBA"), "10": picture.quantize(64), "11": picture.convert("L")}
    (tmp_path / "a").mkdir()
    for name, kind in kinds.items():
        kind.save(tmp_path / "a" / f"{name}.png")
    clip = open_clip(tmp_path / "a", tmp_path / "scratch")
    assert (clip.frame_names, clip.promised, clip.size) == (("1", "2", "10", "11"), 4, (16, 24))
    for index, name in enumerate(clip.frame_names):
        assert np.array_equal(clip.read(index), np.asarray(kinds[name].convert("RGB")))
    assert np.array_equal(clip.read(0), clip.read(1)) and not np.array_equal(clip.read(0), clip.read(3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.jpg", Image.new("RGB", (24, 16)), "a: holds 2 PNG and 1 JPEG files; keep those that are the frames"),
        ("0.PNG", Image.new("RGB", (24, 16)), r"several files are called 0 \(0\.PNG and 0\.png\); keep one"),
        (
            "1.png",
            Image.new("RGB", (24, 15)),
            r"1\.png: 15x24 \(height x width\), but the video's first frame is 16x24",
        ),
        ("1.png", Image.new("I;16", (24, 16)), r"1\.png: cannot be decoded \(it has 16 bits a pixel, wanted are 8\)"),
        ("1.png", b"no picture", r"1\.png: cannot be read as PNG"),
        ("1.png", b"", r"1\.png: cannot be read as PNG \(an empty file\)"),
    ],
)
def test_a_folder_of_pngs_that_is_no_video_is_told(
    tmp_path: Path, name: str, content: Image.Image | bytes, message: str
) -> None:
    for each in ("0.png", "2.png"):
        Image.new("RGB", (24, 16)).save(tmp_path / each)
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content.save(tmp_path / name)
    with pytest.raises(DataError, match=message.replace("a: ", f"{tmp_path.name}: ")):
        open_clip(tmp_path, tmp_path / "scratch")


def test_a_png_that_ends_too_early_is_refused_when_the_clip_is_opened(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.Philox(1))
    Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"0\.png: cannot be read as PNG \(it ends too early, .*take this frame again"):
        open_clip(tmp_path, tmp_path / "scratch")


def test_what_is_neither_file_nor_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such video file or folder of JPEG or PNG frames"):
        open_clip(tmp_path / "none", tmp_path / "scratch")


def test_frames_that_an_edit_list_hides_in_a_real_clip_are_not_promised(tmp_path: Path) -> None:
    shared = Path(os.environ.get("GLUS_SHARED", Path(__file__).parents[2].parent / "shared"))
    path = shared / "realdata" / "videos" / "header_says_144_frames.mp4"
    if not path.is_file():
        pytest.skip(f"the real videos are not at {path.parent} (set GLUS_SHARED)")
    clip = open_clip(path, tmp_path / "scratch")
    assert (clip.name, len(clip), clip.promised) == ("header_says_144_frames", 141, 141)
    assert clip.read(140).any() and clip.rate == 30 and clip.notes == ()
