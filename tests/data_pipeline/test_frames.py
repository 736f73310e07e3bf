"""Frames from folders of JPEG files and from video files."""

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.data_pipeline.raw import frames as frames_module
from glus.data_pipeline.raw.frames import FrameFolder, VideoFile, extract_frames
from glus.data_pipeline.raw.jpeg import decode_jpeg, jpeg_header
from tests.videos import without_its_end, write_video


@pytest.fixture
def folder(tmp_path, tiny):
    tiny.write_frames(tmp_path / "video")
    return tmp_path / "video"


def test_a_folder_gives_the_named_frames_unchanged(folder, tiny):
    frames = FrameFolder(folder, ["00010", "00000"])
    assert frames.names == ("00010", "00000") and frames.size == (32, 48)
    assert frames.read_bytes(0) == tiny.jpegs[2] and frames.read_bytes(1) == tiny.jpegs[0]
    assert frames.origin(0).endswith("video/00010.jpg")


def test_without_names_a_folder_is_listed_by_number(tmp_path, tiny):
    for name in ("0", "10", "9"):
        (tmp_path / f"{name}.jpg").write_bytes(tiny.jpegs[0])
    (tmp_path / "notes.txt").write_text("not a frame")
    assert FrameFolder(tmp_path).names == ("0", "9", "10")


def test_folders_that_are_missing_or_hold_no_frames_are_refused(tmp_path):
    with pytest.raises(DataError, match="no: this folder of frames is missing"):
        FrameFolder(tmp_path / "no")
    with pytest.raises(DataError, match="holds no JPEG frames"):
        FrameFolder(tmp_path)
    with pytest.raises(DataError, match="no frames are listed"):
        FrameFolder(tmp_path, [])


def test_a_missing_frame_is_named(folder):
    with pytest.raises(DataError, match=r"video/00007\.jpg: this frame is missing") as caught:
        FrameFolder(folder, ["00000", "00007"]).read_bytes(1)
    assert caught.value.frame == "00007" and caught.value.file.endswith("video/00007.jpg")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "an empty file instead of a JPEG"),
        (
            lambda content: b"\x89PNG\r\n\x1a\n" + content,
            r"cannot be read as JPEG \(it is a PNG, whatever its name says\)",
        ),
        (lambda content: content[: len(content) // 2], "a JPEG that ends too early"),
        (lambda content: content[:3] + bytes(len(content)) + b"\xff\xd9", "cannot be read as JPEG"),
    ],
)
def test_a_damaged_frame_is_refused_with_its_path(folder, damage, message):
    path = folder / "00005.jpg"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"00005\.jpg: {message}"):
        FrameFolder(folder, ["00000", "00005"]).read_bytes(1)


def test_a_frame_of_another_size_is_refused(folder):
    (folder / "00005.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    with pytest.raises(DataError, match=r"00005\.jpg: 16x16 \(height x width\), but the video's first frame is 32x48"):
        FrameFolder(folder, ["00000", "00005"]).read_bytes(1)


@pytest.mark.parametrize("size", [(48, 32), (90, 60), (426, 240)])
def test_frames_of_a_video_file_look_as_drawn_at_any_width(tmp_path, size):
    drawn = [np.full((size[1], size[0], 3), (40 * index, 20, 80), np.uint8) for index in range(4)]
    for frame in drawn:
        frame[5:20, 10:30] = (40, 40, 200)
    video = VideoFile(write_video(tmp_path / "clip.avi", drawn))
    assert video.names == ("00000", "00001", "00002", "00003") and video.size == (size[1], size[0])
    assert video.read_bytes(2) == video.read_bytes(2)
    assert jpeg_header(video.read_bytes(2), "").size == video.size
    for index, frame in enumerate(drawn):
        decoded = cv2.imdecode(np.frombuffer(video.read_bytes(index), np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(decoded.astype(int) - frame).mean() < 5


def test_a_still_ending_is_not_taken_for_missing_frames(tmp_path):
    video = VideoFile(write_video(tmp_path / "still.mp4", [np.full((48, 64, 3), 99, np.uint8)] * 6, "mp4v"))
    assert len(video.names) == 6


def test_names_pick_frames_by_number_where_there_are_more_frames(tmp_path):
    drawn = [np.full((48, 64, 3), 25 * index, np.uint8) for index in range(10)]
    path = write_video(tmp_path / "clip.avi", drawn)
    video = VideoFile(path, ["00000", "00005"])
    decoded = cv2.imdecode(np.frombuffer(video.read_bytes(1), np.uint8), cv2.IMREAD_COLOR)
    assert abs(int(decoded.mean()) - 125) < 4 and video.origin(1).endswith("clip.avi frame 00005")
    with pytest.raises(DataError, match=r"clip\.avi: holds 10 frames, which does not fit the 2 frames"):
        VideoFile(path, ["00000", "00010"])


def test_frames_that_an_annotation_lists_out_of_time_order_keep_their_names(tmp_path):
    drawn = [np.full((48, 64, 3), 25 * index, np.uint8) for index in range(4)]
    path = write_video(tmp_path / "clip.avi", drawn)
    names = ["00010", "00000", "00015", "00005"]
    video = VideoFile(path, names)
    shown = [cv2.imdecode(np.frombuffer(video.read_bytes(index), np.uint8), cv2.IMREAD_COLOR) for index in range(4)]
    assert video.names == tuple(names)
    assert [round(picture.mean() / 25) for picture in shown] == [2, 0, 3, 1]


def test_an_animated_webp_is_named_with_a_way_to_convert_it(tmp_path):
    pictures = [Image.fromarray(np.full((32, 48, 3), grey, np.uint8)) for grey in (20, 200)]
    pictures[0].save(tmp_path / "anim.webp", save_all=True, append_images=pictures[1:], duration=100)
    with pytest.raises(DataError, match=r"FFmpeg reads no animated WebP\); convert it first: magick IN\.webp OUT\.mp4"):
        VideoFile(tmp_path / "anim.webp")


def test_cmyk_frames_decode_to_their_colours(folder):
    colours = np.full((32, 48, 3), (200, 60, 20), np.uint8)
    for name in ("00000", "00005"):
        Image.fromarray(colours).convert("CMYK").save(folder / f"{name}.jpg", quality=95)
    picture = np.empty((32, 48, 3), np.uint8)
    decode_jpeg(FrameFolder(folder, ["00000", "00005"]).read_bytes(1), picture)
    assert np.abs(picture.astype(int) - colours).max() <= 3


def test_what_file_systems_leave_among_frames_is_passed_over(folder):
    before = FrameFolder(folder).names
    for name in ("@eaDir", "__MACOSX", ".AppleDouble"):
        (folder / name).mkdir()
        (folder / name / "00000.jpg").write_bytes(b"thumbnail")
    for name in (".DS_Store", "._00000.jpg", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"")
    assert FrameFolder(folder).names == before


def test_files_that_are_no_video_are_refused(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"x\.mp4: no video that can be read"):
        VideoFile(tmp_path / "x.mp4")
    with pytest.raises(DataError, match=r"y\.mp4: this video file is missing"):
        VideoFile(tmp_path / "y.mp4")


def test_frames_that_are_not_there_are_noted_and_what_is_there_is_read(tmp_path):
    random = np.random.Generator(np.random.Philox(3))
    drawn = [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(12)]
    path = without_its_end(write_video(tmp_path / "clip.mp4", drawn, "mp4v"), 0.3)
    videos = [VideoFile(path) for _ in range(3)]
    assert len({tuple(map(video.read_bytes, range(len(video.names)))) for video in videos}) == 1
    count = len(videos[0].names)
    assert 6 <= count <= 8 and videos[0].names == tuple(f"{number:05d}" for number in range(count))
    assert f"clip.mp4: its header promises 12 frames, {count} can be decoded; lost: frames " in videos[0].notes[0]


def test_a_video_without_a_frame_that_decodes_is_refused(tmp_path):
    drawn = [np.full((48, 64, 3), 20 * index, np.uint8) for index in range(5)]
    path = without_its_end(write_video(tmp_path / "clip.mp4", drawn), 1)
    for read in (VideoFile, lambda path: extract_frames(path, tmp_path / "frames")):
        with pytest.raises(DataError, match=r"clip\.mp4: (no video that can be read|not one frame can be decoded)"):
            read(path)


@pytest.mark.parametrize("way", [VideoFile, lambda path: extract_frames(path, path.parent / "frames").frames])
def test_frames_are_decoded_as_they_are_written(tmp_path, monkeypatch, way):
    drawn = (np.full((480, 640, 3), index, np.uint8) for index in range(250))
    path = write_video(tmp_path / "clip.avi", drawn)
    process, encode, held = psutil.Process(), frames_module.encode_jpeg, []

    def encoded(frame, origin):
        held.append(process.memory_info().rss)
        return encode(frame, origin)

    monkeypatch.setattr(frames_module, "encode_jpeg", encoded)
    before = process.memory_info().rss
    assert len(way(path).names) == 250
    # They are 230 MB: decord's threads would hold a hundred and more while the first ones are encoded.
    assert max(held) - before < 50e6


@pytest.mark.parametrize("share", [0, 0.3])
def test_extracted_frames_are_those_of_the_video_file(tmp_path, share):
    random = np.random.Generator(np.random.Philox(3))
    drawn = [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(12)]
    path = without_its_end(write_video(tmp_path / "clip.mp4", drawn, "mp4v"), share)
    video, extracted = VideoFile(path), extract_frames(path, tmp_path / "new" / "frames")
    assert (extracted.frames.names, extracted.frames.size) == (video.names, (48, 64))
    assert [*map(extracted.frames.read_bytes, range(len(video.names)))] == [
        *map(video.read_bytes, range(len(video.names)))
    ]
    assert (extracted.promised, extracted.rate) == (12, 5)


def test_frames_that_an_edit_list_hides_in_a_real_clip_are_not_noted_as_lost(real_data):
    """Its header lists 144 frames, of which an edit list shows 141."""
    video = VideoFile(real_data / "videos" / "header_says_144_frames.mp4")
    assert len(video.names) == 141 and video.notes == ()


def test_a_real_clip_is_read_whole(real_data):
    video = VideoFile(real_data / "videos" / "example.mp4")
    assert len(video.names) == 117 and video.size == (480, 640)


def test_a_video_file_that_cannot_be_looked_at_is_named(tmp_path):
    with pytest.raises(DataError, match="a.mp4: cannot be opened"):
        VideoFile(tmp_path / ("a" * 300 + ".mp4"))
