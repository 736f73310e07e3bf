"""Frames of a video as original JPEG bytes: from a folder, or from a video file through decord.

Both classes are a FrameSource (records.py) and know the frames' `size` (height, width).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from glus.common.errors import UserError
from glus.common.files import read_regular
from glus.common.pictures import MOST_BYTES, open_picture
from glus.data_pipeline.errors import DataError

FRAME_ENDINGS = (".jpg", ".jpeg", ".JPG", ".JPEG")
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")
#: Quality at which a video file's frames are encoded: no visible loss, about a tenth of PNG's size.
ENCODED_QUALITY = 95

_log = logging.getLogger(__name__)


def jpeg_size(content: bytes, origin: str) -> tuple[int, int]:
    """(height, width) from the header of JPEG bytes; the picture itself is not decoded.

    Raises DataError, naming `origin`, where the bytes are no JPEG or end before the picture does.
    """
    if not content:
        raise DataError(f"{origin}: an empty file instead of a JPEG; take this frame anew", file=origin)
    # Coded data never contains this pair, so a picture that was cut lacks it. Some cameras add a few bytes after it.
    if content[:3] == b"\xff\xd8\xff" and b"\xff\xd9" not in content[-1024:]:
        raise DataError(
            f"{origin}: a JPEG that ends too early ({len(content)} bytes); take this frame anew", file=origin
        )
    return open_picture(content, ("JPEG",), where=origin, what="frame", error=DataError).size


def decode_jpeg(content: bytes, picture: NDArray[np.uint8]) -> None:
    """Decode JPEG bytes into `picture`, uint8 [H, W, 3] RGB. No rotation by EXIF, which the masks do not know of.

    Raises ValueError where the bytes are damaged anywhere, even where most decoders would fill in grey, or where the
    size is another. libjpeg-turbo through simplejpeg: of the well-kept libraries the fastest (docs/log.md).
    """
    height, width = simplejpeg.decode_jpeg(content, colorspace="RGB", buffer=picture).shape[:2]
    if (height, width) != picture.shape[:2]:
        raise ValueError(f"it is {height}x{width} (height x width) in place of {picture.shape[0]}x{picture.shape[1]}")


def frame_order(names: Sequence[str]) -> tuple[str, ...]:
    """Names in time's order: by number where all are numbers (0, 1, ... 10), else by letter."""
    by_number = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if by_number else (0, name)))


class FrameFolder:
    """JPEG files of one folder; the names decide which and in which order."""

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        """Without `names`: all JPEG files of the folder. Raises DataError on a missing or empty folder."""
        self.folder = folder
        self.names = tuple(names) if names is not None else self._listing()
        if not self.names:
            raise DataError(f"{folder}: no frames are listed; the annotation or the folder is empty", file=str(folder))
        self._size: tuple[int, int] | None = None

    def _listing(self) -> tuple[str, ...]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: this folder of frames is missing", file=str(self.folder))
        names = [path.stem for path in self.folder.iterdir() if path.suffix in FRAME_ENDINGS]
        if not names:
            raise DataError(f"{self.folder}: holds no JPEG frames", file=str(self.folder))
        return frame_order(names)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first frame."""
        if self._size is None:
            self._size = jpeg_size(self._bytes(0), self.origin(0))
        return self._size

    def origin(self, index: int) -> str:
        return str(self.folder / f"{self.names[index]}.jpg")

    def read_bytes(self, index: int) -> bytes:
        """The frame as released. Raises DataError where it is missing, no JPEG, or of another size than the first."""
        content = self._bytes(index)
        size = jpeg_size(content, self.origin(index))
        if size != self.size:
            raise DataError(
                f"{self.origin(index)}: {size[0]}x{size[1]} (height x width), but the video's first frame is "
                f"{self.size[0]}x{self.size[1]}; take this frame anew",
                file=self.origin(index),
                frame=self.names[index],
            )
        return content

    def _bytes(self, index: int) -> bytes:
        for ending in FRAME_ENDINGS:
            path = self.folder / f"{self.names[index]}{ending}"
            if not os.path.lexists(path):
                continue
            try:
                return read_regular(path, "frame", MOST_BYTES)
            except UserError as error:
                raise DataError(str(error), file=str(path), frame=self.names[index]) from error
        reason = "this frame is missing" if self.folder.is_dir() else "this frame is missing, and so is its folder"
        raise DataError(
            f"{self.origin(index)}: {reason}, although the annotation lists it",
            file=self.origin(index),
            frame=self.names[index],
        )


class VideoFile:
    """Frames of a video file, each decoded and encoded as JPEG once.

    Names are "00000", "00001", ... unless given. All frames are held in memory as JPEG (about 100 kB each at 854x480),
    as a shard's sample holds them; decoded ones one at a time.
    """

    def __init__(self, path: Path, names: Sequence[str] | None = None) -> None:
        """With `names`: as many as the file has frames, or else each the number of its frame.

        Raises DataError where the file cannot be read or the names do not fit its frames.
        """
        self.path = path
        self._frames, self.size = _decoded(path)
        count = len(self._frames)
        if names is None:
            names = [f"{number:05d}" for number in range(count)]
        elif len(names) != count:
            numbers = [int(name) if name.isdecimal() else count for name in names]
            if not numbers or max(numbers) >= count:
                raise DataError(
                    f"{path}: {count} frames can be decoded, which does not fit the {len(names)} frames that the "
                    "annotation lists; take the file anew or extract the frames into a folder",
                    file=str(path),
                )
            self._frames = [self._frames[number] for number in numbers]
        self.names = tuple(names)

    def origin(self, index: int) -> str:
        return f"{self.path} frame {self.names[index]}"

    def read_bytes(self, index: int) -> bytes:
        """The frame's JPEG bytes, the same at every call."""
        return self._frames[index]


@dataclass(frozen=True)
class ExtractedVideo:
    """A video file's frames as JPEG files. `promised`: how many its header says; `rate`: frames a second, 0 unknown."""

    frames: FrameFolder
    promised: int
    rate: float


def extract_frames(path: Path, folder: Path) -> ExtractedVideo:
    """Write the frames of a video file into `folder` (made) as they are decoded: the bytes that `VideoFile` gives.

    One frame is in memory at a time. Raises DataError where the file is missing, is no video, or has no frame that
    decodes; OSError where `folder` cannot be written.
    """
    decoder = _Decoder(path)
    folder.mkdir(parents=True)
    for number, frame in decoder.one_at_a_time():
        (folder / f"{number:05d}.jpg").write_bytes(_encoded(frame, path))
    count = decoder.real_frames()
    names = [f"{number:05d}" for number in range(count)]
    return ExtractedVideo(FrameFolder(folder, names), decoder.promised, decoder.rate)


def _decoded(path: Path) -> tuple[list[bytes], tuple[int, int]]:
    """All frames that decode, as JPEG bytes, and their (height, width)."""
    decoder = _Decoder(path)
    frames: list[bytes] = []
    size = (0, 0)
    for number, frame in decoder.one_at_a_time():
        frames[number:] = [_encoded(frame, path)]
        size = (frame.shape[0], frame.shape[1])
    count = decoder.real_frames()
    if count < decoder.promised:
        _log.warning("%s: its header promises %d frames, %d can be decoded; read so far", path, decoder.promised, count)
    return frames[:count], size


class _Decoder:
    """One pass over a video file. `promised` frames stand in its header; `rate` is in frames a second, 0 unknown."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where the file is missing or no video."""
        import decord  # here, because it loads its own FFmpeg

        if not path.is_file():
            raise DataError(f"{path}: this video file is missing", file=str(path))
        # decord's own errors are no RuntimeError; that one is what it passes on from FFmpeg.
        self._errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError)
        try:
            self._video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self.promised, self.rate = len(self._video), float(self._video.get_avg_fps())
        except self._errors as error:
            raise DataError(f"{path}: no video that can be read; take the file anew", file=str(path)) from error
        self._path = path
        self._seen = 0
        self._repeated = False

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number and uint8 [H, W, 3] RGB of frame after frame, as far as the file decodes.

        A number that comes again replaces what was there: where decord fails its threads lose frames that would
        decode, another number of them each time, so OpenCV then reads the file from its beginning.
        """
        previous: np.ndarray | None = None
        for number in range(self.promised):
            try:
                frame = _rgb(self._video.next().asnumpy())
            except (*self._errors, StopIteration):
                yield from self._by_opencv()
                return
            self._repeated = previous is not None and np.array_equal(frame, previous)
            self._seen = number + 1
            previous = frame
            yield number, frame

    def one_at_a_time(self) -> Iterator[tuple[int, np.ndarray]]:
        """The same frames, but never more than one in memory: by OpenCV, by decord itself where OpenCV reads nothing.

        While a frame is worked on, decord's threads decode ahead without bound, in the end the whole video.
        """
        yield from islice(self._by_opencv(), self.promised)
        if not self._seen:
            yield from self

    def _by_opencv(self) -> Iterator[tuple[int, np.ndarray]]:
        self._seen, self._repeated = 0, False
        with _opened_by_opencv(self._path) as capture:
            while (read := capture.read())[0]:
                self._seen += 1
                yield self._seen - 1, cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)

    def real_frames(self) -> int:
        """How many of the frames gone through are real. Raises DataError for none."""
        # Behind the last real frame decord repeats it. A still ending looks the same, so a second decoder is asked.
        count = min(self._seen, _decodable(self._path)) if self._repeated else self._seen
        if not count:
            raise DataError(f"{self._path}: not one frame can be decoded; take the file anew", file=str(self._path))
        return count


def _rgb(frame: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of decord's frame, whose padded rows it takes for more channels when pictures are narrow."""
    height, width, channels = frame.shape
    if channels == 3:
        return frame
    return np.ascontiguousarray(frame.reshape(height, -1)[:, : width * 3].reshape(height, width, 3))


def _encoded(frame: np.ndarray, path: Path) -> bytes:
    """JPEG bytes of a uint8 [H, W, 3] RGB frame."""
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, ENCODED_QUALITY]
    )
    if not done:
        raise DataError(f"{path}: a frame of shape {frame.shape} cannot be encoded as JPEG", file=str(path))
    return content.tobytes()


def _decodable(path: Path) -> int:
    """How many frames OpenCV's decoder finds."""
    with _opened_by_opencv(path) as capture:
        count = 0
        while capture.grab():
            count += 1
        return count


@contextmanager
def _opened_by_opencv(path: Path) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # decord does not turn pictures either
    try:
        yield capture
    finally:
        capture.release()
