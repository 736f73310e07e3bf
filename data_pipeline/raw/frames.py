"""Frames of a video as JPEG bytes: from a folder of JPEG files, or from a video file.

Both classes are a FrameSource (records.py) and know the frames' `size` (height, width).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from glus.common.errors import DataError, UserError
from glus.common.files import read_regular
from glus.common.pictures import MOST_BYTES
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, NamedFiles, frame_order, only_file
from glus.data_pipeline.raw.jpeg import JpegHeader, encode_jpeg, jpeg_header
from glus.data_pipeline.raw.orientation import Orientation
from glus.data_pipeline.raw.video_survey import Survey


class FrameFolder:
    """JPEG files of one folder; the names decide which and in which order.

    `as_shown`: sizes are those that viewers show, turned by EXIF (a video of one's own); otherwise those that are
    stored, and a frame that carries an orientation is noted (released data, whose masks know nothing of it).
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] | None = None,
        *,
        as_shown: bool = False,
        files: NamedFiles | None = None,
    ) -> None:
        """Without `names`: all JPEG files of the folder; `files` are these, where they were listed before.

        Raises DataError on a missing or empty folder.
        """
        self.folder = folder
        self._files = files or NamedFiles(folder, JPEG_ENDINGS)
        self.names = tuple(names) if names is not None else self._listing()
        if not self.names:
            raise DataError(f"{folder}: no frames are listed; the annotation or the folder is empty", file=str(folder))
        self._as_shown = as_shown
        self._first: JpegHeader | None = None
        self._turned: dict[str, Orientation] = {}

    def _listing(self) -> tuple[str, ...]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: this folder of frames is missing", file=str(self.folder))
        for name, files in self._files.files.items():
            only_file(files, name)
        if not self._files.files:
            raise DataError(f"{self.folder}: holds no JPEG frames", file=str(self.folder))
        return frame_order(self._files.files, str(self.folder))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first frame."""
        first = self._first_header()
        return first.size_shown if self._as_shown else first.size

    @property
    def orientation(self) -> Orientation:
        """How the first frame is turned when it is shown."""
        return self._first_header().orientation

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the frames read so far: those that carry an orientation."""
        if self._as_shown or not self._turned:
            return ()
        name, orientation = next(iter(self._turned.items()))
        count = f"{len(self._turned)} of {len(self.names)} frames carry"
        return (
            f"{self.folder}: {count} an EXIF orientation ({name}: {orientation}); they are stored as they are, not "
            "turned, and masks are taken to fit that",
        )

    def origin(self, index: int) -> str:
        return str(self._files.path(self.names[index]))

    def read_bytes(self, index: int) -> bytes:
        """The frame as released. Raises DataError where it is missing, no JPEG, or of another size than the first."""
        content = self._bytes(index)
        header = jpeg_header(content, self.origin(index))
        if not header.orientation.upright:
            self._turned[self.names[index]] = header.orientation
        size = header.size_shown if self._as_shown else header.size
        if size != self.size:
            raise DataError(
                f"{self.origin(index)}: {size[0]}x{size[1]} (height x width), but the video's first frame is "
                f"{self.size[0]}x{self.size[1]}; take this frame again",
                file=self.origin(index),
                frame=self.names[index],
            )
        return content

    def _first_header(self) -> JpegHeader:
        if self._first is None:
            self._first = jpeg_header(self._bytes(0), self.origin(0))
        return self._first

    def _bytes(self, index: int) -> bytes:
        path = self._files.path(self.names[index])
        if not os.path.lexists(path):
            missing = "this frame is missing" if self.folder.is_dir() else "this frame is missing, and so is its folder"
            raise DataError(
                f"{path}: {missing}, although the annotation lists it", file=str(path), frame=self.names[index]
            )
        try:
            return read_regular(path, "frame", MOST_BYTES)
        except UserError as error:
            raise DataError(str(error), file=str(path), frame=self.names[index]) from error


class VideoFile:
    """Frames of a video file as players show them, each decoded and encoded as JPEG once.

    Names are "00000", "00001", ... unless given; a frame that cannot be decoded leaves a gap. All frames are held in
    memory as JPEG (about 100 kB each at 854x480), as a shard's sample holds them.
    """

    def __init__(self, path: Path, names: Sequence[str] | None = None) -> None:
        """With `names`: as many as the file has frames, or else each the number of its frame.

        Raises DataError where the file cannot be read, the names do not fit its frames, or a named frame is lost.
        """
        from glus.data_pipeline.raw.video_file import survey  # here: shards are read where there is no PyAV

        self.path = path
        known = survey(path)
        self.size = known.size
        self.orientation = known.turned
        self.notes = known.notes
        if not known.turned.upright:
            self.notes += (
                f"{path}: carries an orientation ({known.turned}); its frames are stored as players show them, "
                f"{known.size[0]}x{known.size[1]} (height x width)",
            )
        wanted = known.numbers if names is None else _numbers(path, names, known)
        self.names = tuple(f"{number:05d}" for number in wanted) if names is None else tuple(names)
        frames = _encoded(path, known, set(wanted))
        self._frames = [frames[number] for number in wanted]

    def origin(self, index: int) -> str:
        return f"{self.path} frame {self.names[index]}"

    def read_bytes(self, index: int) -> bytes:
        """The frame's JPEG bytes, the same at every call."""
        return self._frames[index]


@dataclass(frozen=True)
class ExtractedVideo:
    """A video file's frames as JPEG files, as players show them.

    `promised`: how many the file shows, lost ones included; `rate`: frames a second, 0 unknown; `times`: when each is
    shown, in seconds from the first, None where the file does not say; `notes`: what is lost or may be damaged.
    """

    frames: FrameFolder
    promised: int
    rate: float
    times: tuple[Fraction, ...] | None
    notes: tuple[str, ...]


def extract_frames(path: Path, folder: Path) -> ExtractedVideo:
    """Write the frames of a video file into `folder` (made) as they are decoded: the bytes that `VideoFile` gives.

    A frame is named by its number, so that a lost one leaves a gap. One frame is in memory at a time.
    Raises DataError where the file is missing, is no video, or has no frame that decodes; OSError where `folder`
    cannot be written.
    """
    from glus.data_pipeline.raw.video_file import pictures, survey

    known = survey(path)
    folder.mkdir(parents=True)
    for number, picture in zip(known.given, pictures(path, known), strict=True):
        (folder / f"{number:05d}.jpg").write_bytes(encode_jpeg(picture, str(path)))
    names = [f"{number:05d}" for number in known.numbers]
    return ExtractedVideo(FrameFolder(folder, names), known.promised, float(known.rate), known.times, known.notes)


def _numbers(path: Path, names: Sequence[str], known: Survey) -> list[int]:
    """The number of each named frame."""
    if len(names) == known.promised:
        numbers = _ranks(names)
    else:
        numbers = [int(name) if name.isdecimal() else known.promised for name in names]
        if not numbers or max(numbers) >= known.promised:
            raise DataError(
                f"{path}: holds {known.promised} frames, which does not fit the {len(names)} frames that the "
                "annotation lists; take the file again or extract the frames into a folder",
                file=str(path),
            )
    decoded = set(known.numbers)
    lost = [name for name, number in zip(names, numbers, strict=True) if number not in decoded]
    if lost:
        raise DataError(
            f"{path}: {len(lost)} of the {len(names)} frames that the annotation lists cannot be decoded ({lost[0]} "
            "is the first); take the file again",
            file=str(path),
            frame=lost[0],
        )
    return numbers


def _ranks(names: Sequence[str]) -> list[int]:
    """The place of each name in time, where names have a clear order; else as they are listed."""
    try:
        ordered = frame_order(names, "")
    except DataError:
        return list(range(len(names)))
    place = {name: number for number, name in enumerate(ordered)}
    return [place[name] for name in names]


def _encoded(path: Path, known: Survey, wanted: set[int]) -> dict[int, bytes]:
    """JPEG bytes of the wanted frames. decord reads ordinary files, FFmpeg the others and where decord differs."""
    from glus.data_pipeline.raw.video_file import DisagreementError, pictures, pictures_by_decord, reads_by_decord

    readers = (pictures_by_decord, pictures) if reads_by_decord(known) else (pictures,)
    for read in readers:
        frames: dict[int, bytes] = {}
        try:
            for number, picture in zip(known.given, read(path, known), strict=True):
                if number in wanted:
                    frames[number] = encode_jpeg(picture, str(path))
        except DisagreementError:
            continue
        break
    return frames
