"""A video of one's own: a video file or a folder of frames (JPEG or PNG), read one frame at a time, as it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.pictures import Picture, open_picture
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, PNG_ENDINGS, files_by_stem, frame_order, only_file
from glus.data_pipeline.raw.frames import FrameFolder, extract_frames
from glus.data_pipeline.raw.jpeg import decode_jpeg, jpeg_header
from glus.data_pipeline.raw.orientation import Orientation


@dataclass(frozen=True)
class Clip:
    """A video whose frames are all of one size as they are shown.

    `name` is that of the file or folder; `size`: (height, width) of the frames; `promised`: how many the file shows,
    lost ones included, or how many are in the folder; `rate`: frames a second, 0 where nothing says so; `times`: when
    each frame is shown, in seconds from the first, None where nothing says so; `notes`: what is lost or may be damaged;
    `read`: index -> uint8 [H, W, 3] RGB, which raises DataError where the frame cannot be decoded.
    """

    name: str
    frame_names: tuple[str, ...]
    size: tuple[int, int]
    read: Callable[[int], NDArray[np.uint8]]
    promised: int
    rate: float = 0.0
    times: tuple[Fraction, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame_names)

    def index_of(self, number: int) -> int | None:
        """The index of the frame with this number, counted from 0 with lost frames included; None where it is lost."""
        if self.promised == len(self):
            return number
        names = {name: index for index, name in enumerate(self.frame_names)}
        return names.get(f"{number:05d}")

    def index_of_key_frame(self, number: int) -> int:
        """The index of the key frame that the user gives by its number. Raises DataError where it is not there."""
        if not 0 <= number < self.promised:
            raise DataError(
                f"key_frame={number}: video {self.name} has {self.promised} frames, 0 to {self.promised - 1}"
            )
        index = self.index_of(number)
        if index is None:
            raise DataError(f"key_frame={number}: this frame cannot be decoded; choose another")
        return index


def open_clip(video: Path, scratch: Path) -> Clip:
    """Open a video file or a folder of JPEG or PNG frames.

    A file is decoded, frame after frame, into JPEG files in the folder `scratch` (made; the caller removes it), because
    frames are asked for in any order. A folder is read in place; the sizes of all its frames are checked first.
    Raises DataError: nothing there, no video, no frame that decodes, frames of different sizes, a damaged frame, names
    without a clear order.
    """
    video = video.absolute()
    try:
        is_file, is_folder = video.is_file(), video.is_dir()
    except OSError as error:  # a name of 300 characters, a folder without rights
        raise DataError(f"{video}: cannot be read ({error.strerror}); correct the path", file=str(video)) from error
    name = (video.stem if is_file else video.resolve().name).lstrip(".") or "video"
    if is_file:
        extracted = extract_frames(video, scratch)
        return Clip(
            name,
            extracted.frames.names,
            extracted.frames.size,
            partial(_read_jpeg, extracted.frames),
            extracted.promised,
            extracted.rate,
            extracted.times,
            extracted.notes,
        )
    if not is_folder:
        raise DataError(f"{video}: no such video file or folder of JPEG or PNG frames", file=str(video))
    if pngs := _pngs(video):
        return _of_pngs(name, video, pngs)
    frames = FrameFolder(video, as_shown=True)
    for index in range(len(frames.names)):
        frames.read_bytes(index)
    return Clip(name, frames.names, frames.size, partial(_read_jpeg, frames), len(frames.names))


def _pngs(folder: Path) -> dict[str, Path]:
    """The PNG files of a folder, by name; none where it holds JPEG files instead. Raises DataError for both or none."""
    pngs, jpegs = files_by_stem(folder, PNG_ENDINGS), files_by_stem(folder, JPEG_ENDINGS)
    if not pngs and not jpegs:
        raise DataError(f"{folder}: holds no JPEG or PNG frames", file=str(folder))
    if pngs and jpegs:
        counts = [sum(map(len, files.values())) for files in (pngs, jpegs)]
        raise DataError(
            f"{folder}: holds {counts[0]} PNG and {counts[1]} JPEG files; keep those that are the frames",
            file=str(folder),
        )
    return {name: only_file(files, name) for name, files in pngs.items()}


def _read_jpeg(frames: FrameFolder, index: int) -> NDArray[np.uint8]:
    content = frames.read_bytes(index)
    header = jpeg_header(content, frames.origin(index))
    picture = np.empty((*header.size, 3), np.uint8)
    try:
        decode_jpeg(content, picture)
    except ValueError as error:
        raise DataError(
            f"{frames.origin(index)}: cannot be decoded ({error}); take this frame again", file=frames.origin(index)
        ) from error
    return header.orientation.show(picture)


def _of_pngs(name: str, folder: Path, files: dict[str, Path]) -> Clip:
    names = frame_order(files, str(folder))
    paths = [files[each] for each in names]
    first, *others = (_png_size(path) for path in paths)
    for path, size in zip(paths[1:], others, strict=True):
        if size != first:
            raise DataError(
                f"{path}: {size[0]}x{size[1]} (height x width), but the video's first frame is {first[0]}x{first[1]}; "
                "take this frame again",
                file=str(path),
            )
    return Clip(name, names, first, partial(_read_png, paths), len(names))


def _png_size(path: Path) -> tuple[int, int]:
    """(height, width) as shown, from the header."""
    picture = _open_png(path)
    if picture.mode == "I;16":
        raise DataError(f"{path}: cannot be decoded (it has 16 bits a pixel, wanted are 8); convert it", file=str(path))
    return Orientation(picture.orientation()).size_shown(*picture.size)


def _read_png(paths: Sequence[Path], index: int) -> NDArray[np.uint8]:
    """Grey frames, those of a palette and those with transparency as colours too."""
    picture = _open_png(paths[index])
    return Orientation(picture.orientation()).show(picture.rgb())


def _open_png(path: Path) -> Picture:
    return open_picture(path, ("PNG",), what="frame", error=DataError)
