"""Containers and codecs: every frame has its true number and the orientation that players show, or is reported."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.data_pipeline.raw.frames import VideoFile, extract_frames
from glus.data_pipeline.raw.jpeg import decode_jpeg
from glus.data_pipeline.raw.video_file import DisagreementError, pictures, pictures_by_decord, reads_by_decord, survey
from glus.evaluation.segment.clip import open_clip
from tests.barcodes import Coded, Picture, copy_packets, draw, number_shown, write_coded

pytestmark = pytest.mark.slow

CASES = Path(__file__).parents[1] / "data" / "cases"
COUNT = 24
X264 = {"bf": "3", "g": "12", "crf": "18"}
KINDS = {
    "no B-frames": Coded(options={"bf": "0", "g": "12"}),
    "B-frames": Coded(options=X264),
    "variable rate": Coded(options=X264, ticks=[10 * index + 7 * index % 9 for index in range(COUNT)]),
    "audio first": Coded(options=X264, audio=True),
    "cover art": Coded(options=X264, cover=True),
    "fragmented": Coded(options=X264, container={"movflags": "frag_keyframe+empty_moov"}),
    "10 bits": Coded(options=X264, pix_fmt="yuv420p10le"),
    "4:4:4": Coded(options=X264, pix_fmt="yuv444p"),
    "full range": Coded(options=X264, pix_fmt="yuvj420p"),
    "interlaced": Coded(options={**X264, "flags": "+ildct+ilme", "x264-params": "interlaced=1"}),
    "240 a second": Coded(options=X264, rate=Fraction(240)),
    "one in two seconds": Coded(options=X264, rate=Fraction(1, 2)),
    "Matroska": Coded("mkv", options=X264),
    "MPEG-TS": Coded("ts", options=X264),
    "AVI": Coded("avi", "mpeg4", options={"bf": "2"}),
    "Motion JPEG": Coded("avi", "mjpeg", "yuvj420p"),
    "HEVC": Coded(codec="libx265", options={"x265-params": "log-level=none"}),
    "VP8": Coded("webm", "libvpx", options={"cpu-used": "5"}),
    "VP9": Coded("webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "AV1": Coded(codec=""),
    "ProRes": Coded("mov", "prores_ks", "yuv422p10le"),
    "FFV1": Coded("mkv", "ffv1"),
    "GIF": Coded("gif", "gif", "rgb8"),
}
#: What decord is not asked for, and what it does not read, or not as FFmpeg does.
ODD = {"10 bits", "interlaced", "MPEG-TS", "ProRes", "GIF"}
NOT_BY_DECORD = {"10 bits", "interlaced", "MPEG-TS", "AV1", "GIF"}
#: What players do -> a picture that they show upright.
TURNS: dict[tuple[float, bool, bool], Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    (90, False, False): lambda picture: np.rot90(picture, -1),
    (180, False, False): lambda picture: np.rot90(picture, 2),
    (270, False, False): lambda picture: np.rot90(picture, 1),
    (0, True, False): np.fliplr,
    (0, False, True): np.flipud,
    (90, True, False): lambda picture: np.rot90(picture, 2).swapaxes(0, 1),
    (270, True, False): lambda picture: picture.swapaxes(0, 1),
}


def decoded(content: bytes, size: tuple[int, int]) -> Picture:
    picture = np.empty((*size, 3), np.uint8)
    decode_jpeg(content, picture)
    return picture


def numbers_of(video: VideoFile) -> list[int]:
    return [number_shown(decoded(video.read_bytes(index), video.size)) for index in range(len(video.names))]


def names(numbers: range | list[int]) -> tuple[str, ...]:
    return tuple(f"{number:05d}" for number in numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_has_its_number_in_both_decoders(kind: str, tmp_path: Path) -> None:
    how = KINDS[kind]
    # SVT-AV1's encoder makes a process of root a real-time one, and its children: a stored file, written by libsvtav1.
    path = CASES / "av1_barcodes.mp4" if kind == "AV1" else tmp_path / f"clip.{how.ending}"
    if kind != "AV1":
        write_coded(path, map(draw, range(COUNT)), how)
    known = survey(path)
    assert [number_shown(picture) for picture in pictures(path, known)] == list(range(COUNT))
    assert (known.numbers, known.promised, known.size) == (tuple(range(COUNT)), COUNT, (112, 160))
    assert (known.lost, known.doubtful, known.notes) == ((), (), ())
    if how.ticks is not None:
        assert known.times == tuple(tick / (how.rate * 10) for tick in how.ticks)
    elif how.ending != "gif":
        assert known.rate == how.rate
    try:
        by_decord = [number_shown(picture) for picture in pictures_by_decord(path, known)]
    except DisagreementError:
        by_decord = []
    assert reads_by_decord(known) == (kind not in ODD)
    assert by_decord == ([] if kind in NOT_BY_DECORD else list(range(COUNT)))
    video, extracted = VideoFile(path), extract_frames(path, tmp_path / "frames")
    assert video.names == extracted.frames.names == names(range(COUNT)) and numbers_of(video) == list(range(COUNT))
    for index in range(COUNT):
        assert video.read_bytes(index) == extracted.frames.read_bytes(index)


@pytest.mark.parametrize("turned", TURNS)
@pytest.mark.parametrize("kind", ["B-frames", "interlaced"])
def test_turned_and_mirrored_videos_are_read_as_players_show_them(
    kind: str, turned: tuple[float, bool, bool], tmp_path: Path
) -> None:
    stored = (np.ascontiguousarray(TURNS[turned](draw(number))) for number in range(5))
    path = write_coded(tmp_path / "clip.mp4", stored, Coded(options=KINDS[kind].options, turned=turned))
    video, extracted = VideoFile(path), extract_frames(path, tmp_path / "frames")
    assert video.size == extracted.frames.size == (112, 160) and numbers_of(video) == list(range(5))
    assert [*map(extracted.frames.read_bytes, range(5))] == [*map(video.read_bytes, range(5))]
    assert "clip.mp4: carries an orientation (" in video.notes[0] and extracted.notes == ()
    assert not reads_by_decord(survey(path))  # it turns mirrored pictures wrongly


def test_both_decoders_turn_a_phones_video_the_same_way() -> None:
    import decord

    path = CASES / "rotated_90.mp4"
    known = survey(path)
    reader = decord.VideoReader(str(path))
    assert known.size == (160, 112)
    for picture in pictures(path, known):
        np.testing.assert_array_equal(picture, reader.next().asnumpy())


@pytest.mark.parametrize("hidden", [3, 14])
@pytest.mark.parametrize("kind", ["B-frames", "HEVC"])
def test_frames_that_an_edit_list_hides_are_neither_shown_nor_lost(kind: str, hidden: int, tmp_path: Path) -> None:
    how = KINDS[kind]
    whole = write_coded(tmp_path / "whole.mp4", map(draw, range(COUNT)), how)
    video = VideoFile(copy_packets(whole, tmp_path / "cut.mp4", shift=hidden))
    assert video.names == names(range(COUNT - hidden)) and video.notes == ()
    assert numbers_of(video) == list(range(hidden, COUNT))


@pytest.mark.parametrize("damage", [lambda content: bytes(len(content)), lambda content: content[: len(content) // 2]])
@pytest.mark.parametrize(
    ("kind", "lost", "doubtful"),
    [
        ("no B-frames", 7, range(8, 12)),
        ("B-frames", 5, range(6, 12)),
        ("Motion JPEG", 7, range(0)),
        ("HEVC", 5, range(6, 24)),
        ("VP8", 7, range(0)),
    ],
)
def test_a_damaged_packet_costs_its_frame_and_no_number_moves(
    kind: str, lost: int, doubtful: range, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    how = KINDS[kind]
    whole = write_coded(tmp_path / f"whole.{how.ending}", map(draw, range(COUNT)), how)
    path = copy_packets(
        whole, tmp_path / f"clip.{how.ending}", lambda number, content: damage(content) if number == 7 else content
    )
    video, extracted = VideoFile(path), extract_frames(path, tmp_path / "frames")
    kept = [number for number in range(COUNT) if number != lost]
    assert video.names == extracted.frames.names == names(kept) and extracted.promised == COUNT
    sure = [index for index, number in enumerate(kept) if number not in doubtful]
    shown = numbers_of(video)
    assert [shown[index] for index in sure] == [kept[index] for index in sure]
    assert f"header promises 24 frames, 23 can be decoded; lost: frame {lost}, the first at " in video.notes[0]
    assert survey(path).doubtful == tuple(doubtful) and video.notes == extracted.notes
    # An annotation that lists the lost frame is refused, one that does not keeps every number.
    with pytest.raises(DataError, match=rf"1 of the 24 frames that the annotation lists cannot .*\({lost:05d} "):
        VideoFile(path, names(range(COUNT)))
    few = VideoFile(path, ["00002", "00023"])
    assert few.read_bytes(0) == video.read_bytes(2) and few.read_bytes(1) == video.read_bytes(22)


def test_damage_inside_a_frame_is_noted_although_it_decodes(tmp_path: Path) -> None:
    whole = write_coded(tmp_path / "whole.mp4", map(draw, range(COUNT)), KINDS["no B-frames"])

    def damaged(number: int, content: bytes) -> bytes:
        half = len(content) // 2
        return content if number != 7 else content[:half] + bytes(byte ^ 0x5A for byte in content[half:])

    video = VideoFile(copy_packets(whole, tmp_path / "clip.mp4", damaged))
    assert video.names == names(range(COUNT))
    assert "decoded with errors, or before the next key frame after damage: frames 7 to 11" in video.notes[0]


def test_of_a_file_with_one_damaged_packet_the_other_frames_are_read() -> None:
    video = VideoFile(CASES / "mid_damaged.mp4")
    assert video.names == names([*range(8), *range(9, COUNT)])
    assert "lost: frame 8, the first at 0.333 s" in video.notes[0] and "frames 9 to 11" in video.notes[1]


@pytest.mark.parametrize("ending", ["mkv", "webm", "avi"])
def test_a_file_that_was_cut_off_is_noted(ending: str, tmp_path: Path) -> None:
    kind = {"mkv": "Matroska", "webm": "VP9", "avi": "Motion JPEG"}[ending]
    path = write_coded(tmp_path / f"clip.{ending}", map(draw, range(COUNT)), KINDS[kind])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    video = VideoFile(path)
    assert 2 < len(video.names) < 20
    assert any("its header says 1.00 s, but it ends at 0." in note for note in video.notes)


def test_interlaced_frames_are_never_black() -> None:
    video = VideoFile(CASES / "interlaced.mp4")
    means = [decoded(video.read_bytes(index), video.size).mean() for index in range(6)]
    assert len(video.names) == 6 and np.allclose(means, [78, 78, 77, 76, 73, 72], atol=1)


@pytest.mark.parametrize("second", ["interlaced", "10 bits", "4:4:4"])
def test_a_file_that_changes_midway_is_read_on(second: str, tmp_path: Path) -> None:
    parts = []
    for number, kind in enumerate(("B-frames", second)):
        how = Coded("ts", options=KINDS[kind].options, pix_fmt=KINDS[kind].pix_fmt)
        parts.append(write_coded(tmp_path / f"{number}.ts", map(draw, range(12 * number, 12 * number + 12)), how))
    video = VideoFile(copy_packets(parts, tmp_path / "clip.ts"))
    assert numbers_of(video) == list(range(COUNT)) and video.notes == ()


def test_a_file_whose_size_changes_midway_is_refused(tmp_path: Path) -> None:
    how = Coded("ts", options=X264)
    first = write_coded(tmp_path / "0.ts", map(draw, range(12)), how)
    second = write_coded(tmp_path / "1.ts", (draw(number, 128, 176) for number in range(12)), how)
    path = copy_packets([first, second], tmp_path / "clip.ts")
    for read in (VideoFile, lambda path: extract_frames(path, tmp_path / "frames")):
        with pytest.raises(DataError, match=r"frame 12 is 128x176 \(height x width\), the first is 112x160"):
            read(path)


@pytest.mark.parametrize("name", ["av1.mp4", "anim.gif"])
def test_codecs_that_decord_does_not_know_are_decoded(name: str) -> None:
    video = VideoFile(CASES / name)
    assert video.names == names(range(COUNT)) and video.size == (112, 160) and video.notes == ()
    for index in range(COUNT):
        grey = decoded(video.read_bytes(index), video.size).mean(2)
        assert sum((grey[4:12, 16 * bit + 4 : 16 * bit + 12].mean() > 128) << bit for bit in range(5)) == index


def test_a_codec_that_nobody_decodes_is_named_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "my clip.mp4", map(draw, range(4)), KINDS["B-frames"])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(DataError, match=r"my clip\.mp4: its codec \(zzzz\) .*ffmpeg -i 'my clip\.mp4' -c:v libx264"):
        VideoFile(path)


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_that_would_open_other_files_is_no_video(content: str, tmp_path: Path) -> None:
    write_coded(tmp_path / "other.mp4", map(draw, range(4)), KINDS["B-frames"])
    (tmp_path / "clip.mp4").write_text(content)
    with pytest.raises(DataError, match=r"clip\.mp4: no video that can be read"):
        VideoFile(tmp_path / "clip.mp4")


def test_a_file_that_holds_sound_and_a_cover_only_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        sound, cover = output.add_stream("aac", rate=48000), output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        output.mux(sound.encode(silence))
        output.mux(sound.encode(None))
    with pytest.raises(DataError, match=r"song\.mp4: holds no video stream"):
        VideoFile(path)


def coded_with_b_frames(folder: Path, ending: str = "mp4") -> Path:
    how = Coded(ending=ending, options={"bf": "2", "g": "8"})
    return write_coded(folder / f"clip.{ending}", map(draw, range(COUNT)), how)


def test_no_number_moves_where_a_key_frame_is_lost_and_its_b_frames_come_late(tmp_path: Path) -> None:
    path = copy_packets(coded_with_b_frames(tmp_path), tmp_path / "d.mp4", lambda n, c: bytes(len(c)) if n == 8 else c)
    known = survey(path)
    assert known.promised == COUNT and [lost.number for lost in known.lost]
    shown = dict(zip(known.given, map(number_shown, pictures(path, known)), strict=True))
    assert {number: shown[number] for number in known.numbers if number >= 16} == {n: n for n in range(16, COUNT)}
    frames = open_clip(path, tmp_path / "frames")
    assert [int(name) for name in frames.frame_names] == list(known.numbers)
    assert number_shown(frames.read(len(frames) - 1)) == COUNT - 1


def test_frames_that_are_decoded_after_damage_are_doubted_though_shown_before_it(tmp_path: Path) -> None:
    def emptied(number: int, content: bytes) -> bytes:
        return content[: len(content) // 3] + bytes(len(content) - len(content) // 3) if number == 12 else content

    clean = coded_with_b_frames(tmp_path)
    known = survey(clean)
    right = dict(zip(known.given, pictures(clean, known), strict=True))
    path = copy_packets(clean, tmp_path / "d.mp4", emptied)
    known = survey(path)
    other = {
        number
        for number, picture in zip(known.given, pictures(path, known), strict=True)
        if np.abs(picture.astype(int) - right[number]).mean() > 1
    }
    assert other and other <= set(known.doubtful)


def test_a_frame_that_a_transport_stream_lost_is_noted(tmp_path: Path) -> None:
    path = copy_packets(
        coded_with_b_frames(tmp_path, "ts"), tmp_path / "d.ts", lambda n, c: bytes(len(c)) if n == 12 else c
    )
    assert re.search("its times jump after frames? [0-9]+; about 1 ", " ".join(survey(path).notes))
