"""GlusPredictor: the masks of `glus segment` from Python, for every form that a video may have."""

import gc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from glus.common.errors import DataError, EvaluationError, ModelError, UserError
from glus.evaluation.predict.background import AHEAD
from glus.launch import cli
from glus.predictor import GlusPredictor
from tests.model.videolisa_releases import write_clip336, write_videolisa
from tests.untrained import SELECTOR, write_checkpoint
from tests.videos import write_video

pytestmark = pytest.mark.slow

TEXTS = ["the red circle", "a dog on the left"]
FRAMES = 5


@pytest.fixture(scope="module")
def world(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VideoLISA as released with its CLIP, pngs/ (frames of a demo video) and clip.mp4."""
    root = tmp_path_factory.mktemp("world")
    write_videolisa(root / "videolisa")
    write_clip336(root / "clip336")
    (root / "pngs").mkdir()
    jpegs = sorted((tiny_demo / "raw/mevis/valid_u/JPEGImages").rglob("*.jpg"))[:FRAMES]
    pictures = [Image.open(file).convert("RGB") for file in jpegs]
    for index, picture in enumerate(pictures):
        picture.save(root / "pngs" / f"{index:05d}.png")
    write_video(root / "clip.mp4", [np.asarray(picture)[..., ::-1] for picture in pictures], "mp4v")
    return root


@pytest.fixture(scope="module")
def predictor(answering_run: Path) -> GlusPredictor:
    return GlusPredictor.from_pretrained(answering_run)


@pytest.fixture(scope="module")
def frames(world: Path) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(file)) for file in sorted((world / "pngs").iterdir())])


def masks_of_command(video: Path, weights: Path, out: Path, *more: str) -> NDArray[np.bool_]:
    """Bool [E, T, H, W], as `glus segment` writes them."""
    assert cli.main(["segment", str(video), *TEXTS, "--weights", str(weights), "--out", str(out), *more]) == 0
    found = [sorted((out / "masks" / video.stem / str(number)).iterdir()) for number in range(len(TEXTS))]
    return np.array([[np.asarray(Image.open(file)) > 0 for file in files] for files in found])


@pytest.mark.parametrize(("video", "key_frame"), [("clip.mp4", 0), ("pngs", 0), ("pngs", 3)])
def test_masks_are_those_of_glus_segment_bit_for_bit(
    world: Path, answering_run: Path, predictor: GlusPredictor, tmp_path: Path, video: str, key_frame: int
) -> None:
    due = masks_of_command(world / video, answering_run, tmp_path / "out", "--key-frame", str(key_frame))
    result = predictor.segment(world / video, TEXTS, key_frame=key_frame)
    assert due.shape == (2, FRAMES, 48, 64) and 0 < due.mean() < 1
    np.testing.assert_array_equal(result.masks, due)
    assert result.names == tuple(f"{index:05d}" for index in range(FRAMES)) and result.expressions == tuple(TEXTS)
    assert result.answered.shape == (2, FRAMES) and result.answered.all()


def test_videolisa_is_asked_in_the_same_way(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, tower = world / "videolisa", world / "clip336"
    due = masks_of_command(world / "clip.mp4", weights, tmp_path / "out", "--vision", str(tower))
    capsys.readouterr()
    predictor = GlusPredictor.from_pretrained(weights, vision=tower, device="cpu")
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1] == "videolisa: cpu, fp32" and "prompts videolisa, 32 context frames" in shown
    result = predictor.segment(str(world / "clip.mp4"), TEXTS)
    assert 0 < due.mean() < 1
    np.testing.assert_array_equal(result.masks, due)
    assert capsys.readouterr().err == ""
    with pytest.raises(EvaluationError, match="has no key frame"):
        predictor.segment(world / "pngs", TEXTS, key_frame=1)


FORMS: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "an array": lambda frames: frames,
    "a tensor": torch.from_numpy,
    "arrays": list,
    "tensors": lambda frames: [torch.from_numpy(frame) for frame in frames],
    "pictures": lambda frames: [Image.fromarray(frame) for frame in frames],
    "pictures with transparency": lambda frames: [Image.fromarray(frame).convert("RGBA") for frame in frames],
}


@pytest.mark.parametrize("form", FORMS)
def test_frames_in_memory_have_the_masks_of_a_folder(
    world: Path, predictor: GlusPredictor, frames: NDArray[np.uint8], form: str
) -> None:
    of_folder = predictor.segment(world / "pngs", "the red circle")
    result = predictor.segment(FORMS[form](frames), "the red circle")
    np.testing.assert_array_equal(result.masks, of_folder.masks)
    assert result.masks.shape == (1, FRAMES, 48, 64) and result.names == of_folder.names


def test_a_stream_goes_from_the_key_frame_both_ways_and_reads_frames_as_it_goes(
    predictor: GlusPredictor, frames: NDArray[np.uint8]
) -> None:
    read: list[int] = []

    class Counted(Image.Image):
        """A picture that notes when its pixels are read."""

        def convert(self, *given: Any, **named: Any) -> Image.Image:
            read.append(self.info["index"])
            return super().convert(*given, **named)

    pictures = []
    for index, frame in enumerate(np.concatenate([frames] * 8)):
        picture = Image.fromarray(frame)
        picture.__class__ = Counted
        picture.info["index"] = index
        pictures.append(picture)
    all_masks = predictor.segment(pictures, TEXTS, key_frame=30)
    read.clear()
    stream = predictor.stream(pictures, TEXTS, key_frame=30)
    begun = list(islice(stream, 3))
    assert [(frame.index, frame.name) for frame in begun] == [(30, "00030"), (31, "00031"), (32, "00032")]
    # The context frames, what has been segmented so far, and what is read ahead.
    assert len(read) <= 2 + 3 + AHEAD
    rest = list(stream)
    assert [frame.index for frame in rest] == [*range(33, 40), *reversed(range(30))]
    for frame in [*begun, *rest]:
        np.testing.assert_array_equal(frame.masks, all_masks.masks[:, frame.index])
        assert frame.answered.tolist() == [True, True]


def test_a_stream_that_is_left_early_leaves_no_frames_behind(
    world: Path, predictor: GlusPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = predictor.stream(world / "clip.mp4", TEXTS)
    next(stream)
    assert len(list(tmp_path.rglob("*.jpg"))) == FRAMES
    del stream
    gc.collect()
    assert list(tmp_path.iterdir()) == []


BLACK = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("video", "texts", "key_frame", "error", "message"),
    [
        (BLACK, [], 0, EvaluationError, "no expression: say in words"),
        (BLACK, ["a dog", " . "], 0, EvaluationError, r"expression 1 is empty \(' . '\)"),
        (BLACK, ["a dog " * 900], 0, ModelError, "expression 1 of 1 is too long"),
        (BLACK, "a dog", 2, DataError, "key_frame=2: video video has 2 frames, 0 to 1"),
        (BLACK, "a dog", -1, DataError, "key_frame=-1: video video has 2 frames"),
        (BLACK[:0], "a dog", 0, DataError, "the video holds no frames"),
        ([], "a dog", 0, DataError, "the video holds no frames"),
        (BLACK[0], "a dog", 0, DataError, r"an array of shape \[8, 8, 3\]: give uint8 \[frames, height, width, 3\]"),
        (BLACK / 255, "a dog", 0, DataError, r"frame 0 is float64 \[8, 8, 3\]: give uint8 \[height, width, 3\]"),
        (torch.zeros(2, 3, 8, 8), "a dog", 0, DataError, r"frame 0 is float32 \[3, 8, 8\]"),
        ([BLACK[0], BLACK[0, :4]], "a dog", 0, DataError, r"frame 1 is 4x8 \(height x width\), but the video's first"),
        (["a.png", "b.png"], "a dog", 0, DataError, "frame 0 is of type str: give a NumPy array"),
        ("no/such/file.mp4", "a dog", 0, DataError, "no such video file or folder"),
    ],
)
def test_a_video_or_text_that_cannot_be_used_is_one_clear_message(
    predictor: GlusPredictor, video: Any, texts: Any, key_frame: int, error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        predictor.segment(video, texts, key_frame)


def test_a_selector_has_no_masks(tiny_demo: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tiny_demo, tmp_path / "selector", *SELECTOR)
    with pytest.raises(EvaluationError, match="a key frame selector, which has no segmenter"):
        GlusPredictor.from_pretrained(folder)
