"""GlusPredictor: released or trained weights from Python, with the masks of `glus segment`."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from glus.common.errors import EvaluationError
from glus.common.out_of_memory import memory_explained
from glus.common.terminal import plain
from glus.evaluation.predict.asking import check_segments, check_text
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import Loaded, ModelSource
from glus.evaluation.predict.video_masks import Asked, masks_of_video
from glus.evaluation.segment.clip import Clip, open_clip
from glus.evaluation.segment.given_frames import GivenFrames, clip_of_frames
from glus.model.released.hub import hub_id
from glus.training.devices import Kind, Precision, choose_device, choose_precision, claim

#: A video file, a folder of JPEG or PNG frames, one of both that is open already, or frames in memory.
Video = str | PathLike[str] | Clip | GivenFrames


@dataclass(frozen=True)
class FrameResult:
    """Masks of one frame: bool [E, H, W], in the order of the expressions. `index` counts frames from 0, `name` is the
    frame's name in its folder or its number in its file. Where `answered` (bool [E]) is False, the model did not answer
    with [SEG] and the mask is empty."""

    index: int
    name: str
    masks: NDArray[np.bool_]
    answered: NDArray[np.bool_]


@dataclass(frozen=True)
class VideoResult:
    """Masks of a video: bool [E, T, H, W], one for each expression and frame; `names` [T] are those of the frames.

    Where `answered` (bool [E, T]) is False, the model did not answer with [SEG] and the mask is empty.
    """

    expressions: tuple[str, ...]
    names: tuple[str, ...]
    masks: NDArray[np.bool_]
    answered: NDArray[np.bool_]


class GlusPredictor:
    """A GLUS or VideoLISA that is ready to segment videos. Make one with `from_pretrained`."""

    def __init__(self, loaded: Loaded, device: torch.device, precision: Precision, title: str) -> None:
        """Take a model that `ModelSource.load` put on `device` in `precision`; `title` names it for people."""
        self.device, self.precision, self.title = device, precision, title
        self._loaded, self._config = loaded, InferenceConfig(precision=precision)

    @classmethod
    def from_pretrained(
        cls,
        weights: str | PathLike[str],
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: Precision | None = None,
        vision: str | PathLike[str] | None = None,
    ) -> Self:
        """Load a model, and print once to stderr what it is, its device and its precision.

        weights: a run folder (its latest checkpoint), a checkpoint folder, or a GLUS or VideoLISA in the released
            layout: its folder, or its id on the Hugging Face hub (org/name).
        revision: of that id: a branch, a tag or a commit.
        device: "cuda", "cuda:1", "cpu" or a torch.device; by default a GPU where torch sees one.
        precision: "bf16" or "fp32"; by default bf16 on GPUs that compute in it, else fp32.
        vision: folder or id of the CLIP vision tower, where a release comes without (of the hub: found by itself).
        Raises TrainingError, ModelError, EvaluationError or DataError where the weights are absent, damaged or of
        another kind.
        """
        named = os.fspath(weights)
        if revision is not None:
            if hub_id(named) is None:
                raise EvaluationError(f"revision={revision}: {named} is a folder here and has none; leave it out")
            named = f"{named}@{revision}"
        source = ModelSource.find(named, None if vision is None else os.fspath(vision))
        check_segments(source.method)
        source.check_weights()
        place = torch.device(choose_device("auto", "device") if device is None else device)
        kind: Kind = "cuda" if place.type == "cuda" else "cpu"
        chosen = choose_precision(precision or "auto", kind)
        if place.index is not None:
            claim(place)
        with memory_explained(
            f"loading {weights} on {place}", "take device='cpu' or precision='bf16'", EvaluationError
        ):
            loaded = source.load(place, chosen)
        print(plain("\n".join([*source.notes, f"{source.title}: {place}, {chosen}"])), file=sys.stderr)
        return cls(loaded, place, chosen, source.title)

    def segment(self, video: Video, expressions: str | Sequence[str], key_frame: int = 0) -> VideoResult:
        """All masks of a video. They take E x T x H x W bytes; `stream` holds one frame at a time.

        video: a video file, a folder of JPEG or PNG frames, a list of frames (NumPy or torch uint8 [H, W, 3], or PIL),
            or uint8 [T, H, W, 3] of NumPy or torch; RGB. Or a Clip (clip.py), which stays open.
        expressions: what to segment, in words; E of them, which go through the video together.
        key_frame: the frame to begin at, counted from 0; VideoLISA has none.
        Raises EvaluationError for an empty expression or too little memory, DataError for a video that cannot be read
        or has no such frame, ModelError for an expression that is too long.
        """
        texts = _checked_texts(expressions)
        with _opened(video) as clip:
            masks = np.zeros((len(texts), len(clip), *clip.size), np.bool_)
            answered = np.zeros(masks.shape[:2], np.bool_)
            for frame in self._frames(clip, texts, key_frame):
                masks[:, frame.index], answered[:, frame.index] = frame.masks, frame.answered
            return VideoResult(texts, clip.frame_names, masks, answered)

    def stream(self, video: Video, expressions: str | Sequence[str], key_frame: int = 0) -> Iterator[FrameResult]:
        """Yield each frame's masks once: from the key frame to the end, then from there back to the start.

        Memory does not grow with the video's length; a video file's frames lie in a temporary folder meanwhile.
        Arguments and errors are those of `segment`.
        """
        texts = _checked_texts(expressions)
        with _opened(video) as clip:
            yield from self._frames(clip, texts, key_frame)

    def _frames(self, clip: Clip, texts: tuple[str, ...], key_frame: int) -> Iterator[FrameResult]:
        names = [f"expression {number}" for number in range(len(texts))]
        asked = Asked(texts, names, [clip.index_of_key_frame(key_frame)] * len(texts))
        advice = "give fewer expressions, take device='cpu' or precision='bf16'"
        with memory_explained(f"segmenting {clip.name} on {self.device}", advice, EvaluationError):
            for seen in masks_of_video(self._loaded, self._config, clip.read, len(clip), asked, self.device):
                # With one key frame for all expressions each frame comes once, with all of them, in any order.
                order = np.argsort(seen.expressions)
                answered = np.asarray(seen.answered, np.bool_)[order]
                yield FrameResult(seen.index, clip.frame_names[seen.index], seen.masks[order], answered)


def _checked_texts(expressions: str | Sequence[str]) -> tuple[str, ...]:
    texts = (expressions,) if isinstance(expressions, str) else tuple(expressions)
    if not texts:
        raise EvaluationError("no expression: say in words what is to be segmented")
    for number, text in enumerate(texts):
        check_text(text, f"expression {number}")
    return texts


@contextmanager
def _opened(video: Video) -> Iterator[Clip]:
    """A Clip; the frames of a file lie in a temporary folder until the block ends."""
    if not isinstance(video, (str, PathLike)):
        yield video if isinstance(video, Clip) else clip_of_frames(video)
        return
    with tempfile.TemporaryDirectory(prefix="glus-frames-") as scratch:
        yield open_clip(Path(video), Path(scratch) / "frames")
