"""Frames of a video as original JPEG bytes: from a folder, or from a video file through decord.

Both classes are a FrameSource (records.py) and know the frames' `size` (height, width).
"""

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

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
    if content[:3] != b"\xff\xd8\xff":
        raise DataError(f"{origin}: no JPEG (it begins with {content[:4].hex()}); take this frame anew", file=origin)
    # Coded data never contains this pair, so a picture that was cut lacks it. Some cameras add a few bytes after it.
    if b"\xff\xd9" not in content[-1024:]:
        raise DataError(
            f"{origin}: a JPEG that ends too early ({len(content)} bytes); take this frame anew", file=origin
        )
    try:
        width, height = Image.open(io.BytesIO(content), formats=("JPEG",)).size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{origin}: a JPEG with a broken header ({error}); take this frame anew", file=origin
        ) from error
    if not height or not width:
        raise DataError(f"{origin}: a JPEG without size ({height}x{width}); take this frame anew", file=origin)
    return height, width


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
            try:
                return path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})", file=str(path)) from error
        reason = "this frame is missing" if self.folder.is_dir() else "this frame is missing, and so is its folder"
        raise DataError(
            f"{self.origin(index)}: {reason}, although the annotation lists it",
            file=self.origin(index),
            frame=self.names[index],
        )


class VideoFile:
    """Frames of a video file, each decoded and encoded as JPEG once.

    Names are "00000", "00001", ... unless given. All frames are held in memory as JPEG (about 100 kB each at 854x480).
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


def _decoded(path: Path) -> tuple[list[bytes], tuple[int, int]]:
    """All frames that decode, as JPEG bytes, and their (height, width)."""
    import decord  # here, because it loads its own FFmpeg

    if not path.is_file():
        raise DataError(f"{path}: this video file is missing", file=str(path))
    try:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    except RuntimeError as error:  # decord's own errors and what it passes on from FFmpeg
        raise DataError(f"{path}: no video that can be read; take the file anew", file=str(path)) from error
    promised = len(video)
    frames: list[bytes] = []
    size = (0, 0)
    previous: np.ndarray | None = None
    repeated = False
    for _ in range(promised):
        try:
            frame = _rgb(video.next().asnumpy())
        except (RuntimeError, StopIteration) as error:
            _log.warning("%s: decoding ended after %d frames: %s", path, len(frames), str(error).splitlines()[:1])
            break
        repeated = previous is not None and np.array_equal(frame, previous)
        frames.append(_encoded(frame, path))
        previous, size = frame, (frame.shape[0], frame.shape[1])
    if repeated:
        # Behind the last real frame decord repeats it. A still ending looks the same, so a second decoder is asked.
        frames = frames[: _decodable(path)]
    if not frames:
        raise DataError(f"{path}: not one frame can be decoded; take the file anew", file=str(path))
    if len(frames) < promised:
        _log.warning("%s: its header promises %d frames, %d can be decoded; read so far", path, promised, len(frames))
    return frames, size


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
    capture = cv2.VideoCapture(str(path))
    try:
        count = 0
        while capture.grab():
            count += 1
        return count
    finally:
        capture.release()
