"""`glus segment`: a video of one's own in; masks, pictures and counts out, whole or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from glus.data_pipeline.raw.frames import FrameFolder, VideoFile
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference import predict_video
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.predictions import read_masks
from glus.launch import cli
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.train import train
from tests.model.releases import write_clip, write_glus
from tests.videos import without_its_end, write_video

pytestmark = pytest.mark.slow

FRAMES = tuple(f"{index:05d}" for index in range(6))


@pytest.fixture(scope="module")
def silent_run(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as it begins, which does not answer with [SEG]."""
    config = tiny_run(tmp_path_factory.mktemp("untrained") / "run", "steps=0")
    train(config, Rank(0, 0, 1))
    return Path(config.out)


@pytest.fixture(scope="module")
def split(tiny_demo: Path) -> ShardedSplit:
    return ShardedSplit.open(tiny_demo / "shards" / "mevis" / "valid_u")


@pytest.fixture
def video(tiny_demo: Path, split: ShardedSplit, tmp_path: Path) -> Path:
    """A folder of six JPEG frames, a copy that a test may damage."""
    name = split.videos[0].video
    shutil.copytree(tiny_demo / "raw" / "mevis" / "valid_u" / "JPEGImages" / name, tmp_path / "in" / name)
    return tmp_path / "in" / name


def segment(video: Path, weights: Path, out: Path, *words: str) -> int:
    return cli.main(["segment", str(video), *words, "--weights", str(weights), "--out", str(out)])


def masks_of(out: Path, video: str, expression: int) -> dict[str, NDArray[np.bool_]]:
    found = {}
    for place in sorted((out / "masks" / video / str(expression)).iterdir()):
        with Image.open(place) as picture:
            assert picture.format == "PNG" and picture.mode == "L"
            values = np.asarray(picture)
        assert set(np.unique(values)) <= {0, 255}
        found[place.stem] = values == 255
    return found


def frames_shown(overlay: Path) -> int:
    capture, count = cv2.VideoCapture(str(overlay)), 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def test_masks_are_those_of_evaluation_in_the_benchmarks_layout(
    video: Path, answering_run: Path, split: ShardedSplit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entry, out = split.videos[0], tmp_path / "out"
    texts = [expression.text for expression in entry.expressions]
    assert segment(video, answering_run, out, *texts) == 0
    cpu = torch.device("cpu")
    loaded = ModelSource.find(answering_run).load(cpu)
    predict_video(loaded, split, 0, tmp_path / "due", InferenceConfig(), None, cpu)
    for number, expression in enumerate(entry.expressions):
        due, found = read_masks(tmp_path / "due", entry, expression), masks_of(out, video.name, number)
        assert due is not None and due.any() and tuple(found) == FRAMES
        np.testing.assert_array_equal(np.array(list(found.values())), due)
    shown = capfd.readouterr()
    assert f"0  {texts[0]}: a mask in " in shown.out and f"frames without [SEG]: 0 of {6 * len(texts)}" in shown.out
    told = [f"written: {out / name}" for name in ("masks", "overlay.mp4", "contact_sheet.png", "meta_expressions.json")]
    assert shown.out.splitlines()[-4:] == told
    assert "6 of 6" in shown.err and "not supported" not in shown.err
    assert sorted(place.name for place in tmp_path.iterdir()) == ["due", "in", "out"]
    assert sorted(place.name for place in out.iterdir()) == sorted(line.rsplit("/", 1)[1] for line in told)


def test_overlay_and_contact_sheet_show_every_expression(video: Path, answering_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(video, answering_run, out, "the circle", "日本 é " + "a long one " * 40, "--overlay-rate", "5") == 0
    assert frames_shown(out / "overlay.mp4") == 6
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    picture = capture.read()[1][..., ::-1].astype(int)
    capture.release()
    first, second = (masks_of(out, video.name, number)["00000"] for number in range(2))
    only, outside = np.argwhere(first & ~second), np.argwhere(~first & ~second)
    assert picture.shape[:2] == (240 + 60, 320) and len(outside)
    with Image.open(video / "00000.jpg") as opened:
        frame = np.asarray(opened).astype(int)
    # The picture is five times the frame; what no mask covers is shown as it is.
    row, column = outside[len(outside) // 2]
    assert np.abs(picture[5 * row + 2, 5 * column + 2] - frame[row, column]).max() < 40
    for row, column in only[:1]:
        assert picture[5 * row + 2, 5 * column + 2][1] < frame[row, column][1]
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 6 * 320 and sheet.height > 2 * 240


def test_a_video_file_is_as_the_folder_of_its_frames(video: Path, answering_run: Path, tmp_path: Path) -> None:
    random = np.random.Generator(np.random.Philox(5))
    drawn = [cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(5)]
    write_video(tmp_path / "clip.avi", drawn)
    (tmp_path / "clip").mkdir()
    frames = VideoFile(tmp_path / "clip.avi")
    for index, name in enumerate(frames.names):
        (tmp_path / "clip" / f"{name}.jpg").write_bytes(frames.read_bytes(index))
    assert segment(tmp_path / "clip.avi", answering_run, tmp_path / "file", "the red circle") == 0
    assert segment(tmp_path / "clip", answering_run, tmp_path / "folder", "the red circle") == 0
    one, other = (masks_of(tmp_path / name, "clip", 0) for name in ("file", "folder"))
    assert list(one) == list(other) == ["00000", "00001", "00002", "00003", "00004"]
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    capture = cv2.VideoCapture(str(tmp_path / "file" / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    capture.release()


def noise(frames: int) -> list[NDArray[np.uint8]]:
    random = np.random.Generator(np.random.Philox(3))
    return [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(frames)]


def test_a_header_that_lies_is_read_as_far_as_it_decodes_and_told(
    answering_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = without_its_end(write_video(tmp_path / "clip.mp4", noise(12), "mp4v"), 0.5)
    assert segment(path, answering_run, tmp_path / "out", "a circle") == 0
    count = len(masks_of(tmp_path / "out", "clip", 0))
    assert 3 <= count <= 6 and frames_shown(tmp_path / "out" / "overlay.mp4") == count
    assert f"{path}: its header promises 12 frames, {count} can be decoded; lost: frames " in (capsys.readouterr().out)


def test_frames_are_followed_from_the_key_frame_both_ways_each_under_its_own_name(
    video: Path,
    answering_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    reading = FrameFolder.read_bytes
    monkeypatch.setattr(
        FrameFolder, "read_bytes", lambda frames, index: (read.append(index), reading(frames, index))[1]
    )
    texts = ("the red circle", "the triangle", "all")
    keys = {f"{video.name}_0": 3, f"{video.name}_1": "00005", "another_0": 99}
    (tmp_path / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    assert segment(video, answering_run, tmp_path / "file", *texts, "--key-frame", str(tmp_path / "keys.json")) == 0
    assert f"keys.json has no {video.name}_2: that expression begins at the first frame" in capsys.readouterr().out
    for number, key in enumerate((3, 5)):
        out = tmp_path / str(key)
        read.clear()
        assert segment(video, answering_run, out, texts[number], "--key-frame", str(key)) == 0
        # All are looked at before the model is loaded.
        assert read[6:14] == [*middle_context(6, 2), *range(key, 6), *reversed(range(key))]
        alone, together = masks_of(out, video.name, 0), masks_of(tmp_path / "file", video.name, number)
        assert tuple(alone) == tuple(together) == FRAMES
        # A pixel whose logit is 0 to the last bit may fall either way.
        assert np.mean([alone[name] != together[name] for name in FRAMES]) < 1e-3
    document = json.loads((tmp_path / "file" / "meta_expressions.json").read_text(encoding="utf-8"))
    expressions = document["videos"][video.name]["expressions"]
    assert [expressions[number]["key_frame"] for number in "012"] == ["00003", "00005", "00000"]
    assert [expressions[number]["exp"] for number in "012"] == list(texts)


def test_an_expression_without_any_mask_is_told(
    video: Path, silent_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(video, silent_run, tmp_path / "out", "the red circle") == 0
    shown = capsys.readouterr().out
    assert "0  the red circle: EMPTY: no mask in any of 6 frames; no [SEG] in 6" in shown
    assert "frames without [SEG]: 6 of 6" in shown
    assert not any(mask.any() for mask in masks_of(tmp_path / "out", video.name, 0).values())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_released_glus_segments_fewer_frames_than_it_takes_as_context(
    count: int, answering_run: Path, video: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    released = tmp_path_factory.getbasetemp() / "segment-released"
    if not released.is_dir():
        assert cli.main(["export", str(answering_run), "--out", str(released)]) == 0
    for name in FRAMES[count:]:
        (video / f"{name}.jpg").unlink()
    assert segment(video, released, tmp_path / "out", "the red circle", "--key-frame", str(count - 1)) == 0
    assert tuple(masks_of(tmp_path / "out", video.name, 0)) == FRAMES[:count]
    assert frames_shown(tmp_path / "out" / "overlay.mp4") == count


def test_a_release_without_a_file_of_its_sizes_has_them_read_off_its_weights(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reference's own layout: no vision tower inside, no word on SAM 2's sizes. Its rule always answers [SEG]."""
    released, clip = write_glus(tmp_path / "glus"), write_clip(tmp_path / "clip")
    for name in FRAMES[1:]:
        (video / f"{name}.jpg").unlink()
    assert segment(video, released, tmp_path / "out", "the red circle") == 2
    assert f"{released} holds no vision tower, as GLUS is released: name the folder of" in capsys.readouterr().err
    assert segment(video, released, tmp_path / "out", "the red circle", "--vision", str(clip)) == 0
    assert "a mask in 1 of 1 frames; no [SEG] in 0" in capsys.readouterr().out
    hiera = ["--hiera.heads", "1", "--hiera.global-attention-blocks", "[0]", "--inference.precision", "bf16"]
    assert segment(video, released, tmp_path / "other", "the red circle", "--vision", str(clip), *hiera) == 0
    one, other = (masks_of(tmp_path / name, video.name, 0)["00000"] for name in ("out", "other"))
    assert 0 < (one != other).mean()


def write_jpeg(place: Path, height: int, width: int) -> None:
    place.write_bytes(cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes())


def damage_middle(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[-200:-100] = b"\xff\xd8" * 50
    place.write_bytes(content)


def test_a_name_that_no_file_can_have_is_refused(
    answering_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(tmp_path / ("x" * 300), answering_run, tmp_path / "out", "the dog") == 2
    message = capsys.readouterr().err
    assert "cannot be read (File name too long); correct the path" in message and message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda video: write_jpeg(video / "00004.jpg", 20, 64), "00004.jpg: 20x64 (height x width), but the video's"),
        (lambda video: (video / "00003.jpg").write_bytes(b""), "00003.jpg: an empty file instead of a JPEG"),
        (lambda video: damage_middle(video / "00005.jpg"), "00005.jpg: cannot be decoded"),
        (
            lambda video: write_jpeg(video / "00004.jpeg", 48, 64),
            "several files are called 00004 (00004.jpeg and 00004.jpg); keep one",
        ),
        (lambda video: [each.unlink() for each in video.iterdir()], "holds no JPEG or PNG frames"),
        (shutil.rmtree, "no such video file or folder of JPEG or PNG frames"),
    ],
)
def test_a_damaged_video_is_told_and_leaves_nothing(
    change: Callable[[Path], object],
    message: str,
    video: Path,
    answering_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(video)
    assert segment(video, answering_run, tmp_path / "out", "the red circle") == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert [place.name for place in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"not one frame can be decoded"),
        (b"no video", r"no video that can be read"),
    ],
)
def test_a_file_without_a_frame_is_told(
    content: bytes | None, message: str, answering_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = without_its_end(write_video(tmp_path / "clip.mp4", noise(12), "mp4v"), 1)
    if content is not None:
        path.write_bytes(content)
    assert segment(path, answering_run, tmp_path / "out", "the red circle") == 2
    assert f"clip.mp4: {message}" in capsys.readouterr().err
    assert [place.name for place in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "SegmentConfig needs expressions=..."),
        (["expressions=[]"], "no expression: say what to segment"),
        (["the circle", " . "], "expression 1 is empty (' . '): say in words what is to be segmented"),
        (["the circle \udcff"], "expressions: holds NUL or bytes that are no UTF-8 text"),
        (["an <image> of it"], "an expression may not contain <image>"),
        (["the circle", "a dog " * 833], "expression 2 of 2 is too long: with "),
        (["the circle", "--key-frame", "6"], "key_frame=6: video {name} has 6 frames, 0 to 5"),
        (["the circle", "--key-frame", "-1"], "key_frame=-1: video {name} has 6 frames"),
        (["the circle", "--key-frame", "{folder}/none.json"], "none.json: no such file of key frames"),
        (["the circle", "--key-frame", "{folder}/in/keys.json"], "keys.json names no expression of this video: its"),
        (["the circle", "inference.key_frames=a.json"], "here say --key-frame N or --key-frame FILE.json"),
        (["the circle", "--overlay-rate", "-1"], "overlay_rate=-1.0: give frames a second"),
        (["the circle", "weights={folder}/none"], "none: no such folder of weights; name a run, a checkpoint"),
        (["the circle", "weights={folder}/in"], "in holds no checkpoint"),
        (["the circle", "vision={folder}"], "is a checkpoint of a run and has its own; leave vision out"),
        (["the circle", "out={folder}/in"], "in is there already: choose another `out`, or remove it first"),
        (
            ["the circle", "out={folder}/in/keys.json/new"],
            "in/keys.json is not a folder, so nothing can be written below",
        ),
    ],
)
def test_what_cannot_work_is_one_message_and_leaves_nothing(
    words: list[str], message: str, video: Path, answering_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "keys.json").write_text('{"another_0": 2}', encoding="utf-8")
    given = [word.format(folder=tmp_path) for word in words]
    command = ["segment", str(video), f"weights={answering_run}", f"out={tmp_path}/out", *given]
    assert cli.main(command) == 2
    told = capsys.readouterr().err
    assert message.format(name=video.name) in told and "Traceback" not in told
    assert [place.name for place in tmp_path.iterdir()] == ["in"]
    assert sorted(place.name for place in (tmp_path / "in").iterdir()) == sorted([video.name, "keys.json"])


def test_an_empty_folder_as_out_is_taken(video: Path, answering_run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert segment(video, answering_run, tmp_path / "out", "the red circle") == 0
    assert segment(video, answering_run, tmp_path / "out", "the red circle") == 2
