"""A video of one's own: a video file or a folder of frames (JPEG or PNG), read one frame at a time."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.pictures import open_picture
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.frames import FRAME_ENDINGS, FrameFolder, decode_jpeg, extract_frames, frame_order

PNG_ENDINGS = (".png", ".PNG")


@dataclass(frozen=True)
class Clip:
    """A video whose frames are all of one size.

    `name` is that of the file or folder; `size`: (height, width) of the frames; `promised`: how many there are by the
    file's header, or in the folder; `rate`: frames a second, 0 where nothing says so; `read`: index -> uint8 [H, W, 3]
    RGB, which raises DataError where the frame cannot be decoded.
    """

    name: str
    frame_names: tuple[str, ...]
    size: tuple[int, int]
    read: Callable[[int], NDArray[np.uint8]]
    promised: int
    rate: float = 0.0

    def __len__(self) -> int:
        return len(self.frame_names)


def open_clip(video: Path, scratch: Path) -> Clip:
    """Open a video file or a folder of JPEG or PNG frames.

    A file is decoded once, frame after frame, into JPEG files in the folder `scratch` (made; the caller removes it):
    how many frames it really has is known only then, and frames are asked for in any order. A folder is read in place;
    the sizes of all its frames are checked first.
    Raises DataError: nothing there, no video, no frame that decodes, frames of different sizes, a damaged frame.
    """
    video = video.absolute()
    name = (video.stem if video.is_file() else video.resolve().name).lstrip(".") or "video"
    if video.is_file():
        extracted = extract_frames(video, scratch)
        return _of_jpegs(name, extracted.frames, extracted.promised, extracted.rate)
    if not video.is_dir():
        raise DataError(f"{video}: no such video file or folder of JPEG or PNG frames", file=str(video))
    pictures = _pictures(video)
    if pictures[0].suffix in PNG_ENDINGS:
        return _of_pngs(name, {path.stem: path for path in pictures})
    frames = FrameFolder(video)
    for index in range(len(frames.names)):
        frames.read_bytes(index)
    return _of_jpegs(name, frames, len(frames.names))


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, all JPEG or all PNG, no two of one name."""
    found = [path for path in folder.iterdir() if path.suffix in FRAME_ENDINGS + PNG_ENDINGS]
    if not found:
        raise DataError(f"{folder}: holds no JPEG or PNG frames", file=str(folder))
    pngs = sum(path.suffix in PNG_ENDINGS for path in found)
    if 0 < pngs < len(found):
        told = f"{folder}: holds {pngs} PNG and {len(found) - pngs} JPEG files; keep those that are the frames"
        raise DataError(told, file=str(folder))
    [(name, count)] = Counter(path.stem for path in found).most_common(1)
    if count > 1:
        told = f"{folder}: several files are called {name} ({', '.join(sorted({each.suffix for each in found}))})"
        raise DataError(f"{told}; keep one", file=str(folder))
    return found


def _of_jpegs(name: str, frames: FrameFolder, promised: int, rate: float = 0.0) -> Clip:
    return Clip(name, frames.names, frames.size, partial(_read_jpeg, frames), promised, rate)


def _read_jpeg(frames: FrameFolder, index: int) -> NDArray[np.uint8]:
    picture = np.empty((*frames.size, 3), np.uint8)
    try:
        decode_jpeg(frames.read_bytes(index), picture)
    except ValueError as error:
        raise _undecodable(frames.origin(index), error) from error
    return picture


def _of_pngs(name: str, files: dict[str, Path]) -> Clip:
    names = frame_order(tuple(files))
    paths = [files[each] for each in names]
    first, *others = (_png_size(path) for path in paths)
    for path, size in zip(paths[1:], others, strict=True):
        if size != first:
            raise DataError(
                f"{path}: {size[0]}x{size[1]} (height x width), but the video's first frame is {first[0]}x{first[1]}; "
                "take this frame anew",
                file=str(path),
            )
    return Clip(name, names, first, partial(_read_png, paths), len(names))


def _png_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header."""
    picture = open_picture(path, ("PNG",), what="frame", error=DataError)
    if picture.mode == "I;16":
        raise _undecodable(str(path), "it has 16 bits a pixel, wanted are 8")
    return picture.size


def _read_png(paths: Sequence[Path], index: int) -> NDArray[np.uint8]:
    """Grey frames, those of a palette and those with transparency as colours too."""
    return open_picture(paths[index], ("PNG",), what="frame", error=DataError).rgb()


def _undecodable(origin: str, error: Exception | str) -> DataError:
    return DataError(f"{origin}: cannot be decoded ({error}); take this frame anew", file=origin)
