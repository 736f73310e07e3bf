"""Overlays: H.264 in MP4 that plays everywhere, each frame when it is due, the colours that were drawn."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from glus.common.errors import EvaluationError
from glus.evaluation.segment.clip import Clip, open_clip
from glus.evaluation.segment.segment_pictures import write_overlay_video
from glus.evaluation.segment.video_writer import VideoWriter, even_times
from tests.barcodes import Coded, draw, number_shown, write_coded


def shown(path: Path) -> tuple[list[NDArray[np.uint8]], list[Fraction], Fraction]:
    """Pictures, the times at which they are shown, and the length in seconds."""
    pictures, times = [], []
    with av.open(str(path)) as given:
        stream = given.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        length = stream.duration * stream.time_base
        for frame in given.decode(stream):
            pictures.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.pts * stream.time_base)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    return pictures, times, length


def overlay(clip: Clip, path: Path, rate: float = 0.0) -> None:
    def masks(index: int) -> NDArray[np.bool_]:
        return np.zeros((1, *clip.size), np.bool_)

    assert list(write_overlay_video(path, clip, masks, ["a"], rate)) == list(range(len(clip)))


@pytest.mark.parametrize("rate", [Fraction(240), Fraction(1, 2), Fraction(30000, 1001), Fraction(25)])
def test_an_overlay_plays_as_fast_as_its_video(rate: Fraction, tmp_path: Path) -> None:
    path = write_coded(tmp_path / "clip.mp4", map(draw, range(8)), Coded(rate=rate))
    overlay(open_clip(path, tmp_path / "frames"), tmp_path / "overlay.mp4")
    pictures, times, length = shown(tmp_path / "overlay.mp4")
    assert [number_shown(picture[:224:2, ::2]) for picture in pictures] == list(range(8))
    assert times == pytest.approx([index / rate for index in range(8)], abs=1e-4)
    assert length == pytest.approx(8 / rate, rel=1e-3)


def test_frames_of_a_variable_rate_are_shown_when_they_are_due(tmp_path: Path) -> None:
    ticks = [0, 10, 15, 60, 61, 100]
    path = write_coded(tmp_path / "clip.mp4", map(draw, range(6)), Coded(ticks=ticks))
    overlay(open_clip(path, tmp_path / "frames"), tmp_path / "overlay.mp4")
    assert shown(tmp_path / "overlay.mp4")[1] == pytest.approx([tick / 240 for tick in ticks], abs=1e-4)


@pytest.mark.parametrize(("given", "due"), [(0.0, Fraction(10)), (0.5, Fraction(1, 2)), (120.0, Fraction(120))])
def test_a_folder_plays_at_the_rate_that_is_given(given: float, due: Fraction, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    from PIL import Image

    for number in range(3):
        Image.fromarray(draw(number)).save(tmp_path / "a" / f"{number}.png")
    overlay(open_clip(tmp_path / "a", tmp_path / "frames"), tmp_path / "overlay.mp4", given)
    _, times, length = shown(tmp_path / "overlay.mp4")
    assert times == pytest.approx([index / due for index in range(3)], abs=1e-4)
    assert length == pytest.approx(3 / due, rel=1e-3)


def test_colours_are_those_that_were_drawn(tmp_path: Path) -> None:
    colours: Sequence[tuple[int, int, int]] = ((255, 45, 155), (0, 158, 115), (24, 29, 35), (231, 234, 238))
    times = even_times(len(colours), Fraction(2))
    with VideoWriter(tmp_path / "a.mp4", (720, 1280), times, Fraction(2)) as writer:
        for colour in colours:
            writer.write(np.full((720, 1280, 3), colour, np.uint8))
    for picture, colour in zip(shown(tmp_path / "a.mp4")[0], colours, strict=True):
        assert np.abs(picture[360, 640].astype(int) - colour).max() <= 6


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(EvaluationError, match=r"none/a\.mp4: cannot be written \(No such file or directory\)"),
        VideoWriter(tmp_path / "none" / "a.mp4", (16, 16), [Fraction(0)], Fraction(1)) as writer,
    ):
        writer.write(np.zeros((16, 16, 3), np.uint8))
    if Path("/dev/full").exists():
        (tmp_path / "full.mp4").symlink_to("/dev/full")
        with (
            pytest.raises(EvaluationError, match=r"full\.mp4: cannot be written \(No space left"),
            VideoWriter(tmp_path / "full.mp4", (64, 64), even_times(40, Fraction(25)), Fraction(25)) as writer,
        ):
            for number in range(40):
                writer.write(np.full((64, 64, 3), 5 * number, np.uint8))
