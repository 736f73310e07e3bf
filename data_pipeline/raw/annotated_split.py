"""A split of a raw dataset: names first, then each video alone, so that workers read only what they write."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glus.common.errors import DataError, UserError
from glus.common.json_file import is_unfit, shortened
from glus.common.names import meeting, one_folder
from glus.data_pipeline.raw.annotation_file import read_annotation
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, VideoPlaces, without_ending
from glus.data_pipeline.raw.frames import FrameFolder, VideoFile
from glus.data_pipeline.raw.mask_sources import Masks, MaskSource
from glus.data_pipeline.raw.masks import SIZE_SLACK
from glus.data_pipeline.raw.records import Expression, VideoRecord, check_names


@dataclass(frozen=True)
class VideoAnnotation:
    """`frame_names` is None where the annotation lists no frames: then the folder's listing counts."""

    video: str
    frame_names: tuple[str, ...] | None
    expressions: tuple[Expression, ...]


def parse_video(path: Path, video: str, content: Any, ids_key: str | None) -> VideoAnnotation:
    """One entry of "videos" in a file of expressions.

    Expressions are keyed by id with "exp" (MeViS and its kin), or a list with "exp_id" and "exp_text" (ReasonVOS).
    `ids_key` names the object ids ("anno_id", "obj_id"); None where the split hides them. An optional "kind" is kept;
    where there is none, ReasonVOS's "is_sent", of the expression or of the video, makes it "sentence" or "phrase".
    Raises DataError with the file, the video and the expression; InputError for a name that cannot be one of a file.
    """
    place = f"{path}: video {video}"
    if not isinstance(content, dict) or not isinstance(content.get("expressions"), dict | list):
        raise DataError(f'{place}: has no "expressions"; take this file again', file=str(path), video=video)
    expressions = []
    for exp_id, entry in _entries(place, content["expressions"]):
        where = f"{place} expression {exp_id}"
        text = entry.get("exp", entry.get("exp_text"))
        if isinstance(text, str) and is_unfit(text):
            raise DataError(
                f"{where}: its text {shortened(text)} holds NUL or half of a surrogate pair; correct it",
                file=str(path),
                video=video,
            )
        if not isinstance(text, str) or not text.strip():
            raise DataError(f'{where}: has no text ("exp"); take this file again', file=str(path), video=video)
        kind, type_id = entry.get("kind", "") or _by_is_sent(where, entry, content), entry.get("type_id")
        if not isinstance(kind, str) or is_unfit(kind) or not (type_id is None or type(type_id) is int):
            raise DataError(f'{where}: "kind" must be a text and "type_id" an integer', file=str(path), video=video)
        object_ids = () if ids_key is None else _object_ids(where, entry, ids_key, type_id)
        expressions.append(Expression(exp_id, text, object_ids, kind, type_id))
    frames = _frame_names(place, content)
    check_names(str(path), video, frames or (), expressions, [each for said in expressions for each in said.object_ids])
    return VideoAnnotation(video, frames, tuple(expressions))


def _entries(place: str, expressions: dict[str, Any] | list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(expressions, dict):
        pairs: list[tuple[Any, Any]] = list(expressions.items())
    else:
        pairs = [(entry.get("exp_id") if isinstance(entry, dict) else None, entry) for entry in expressions]
    for exp_id, entry in pairs:
        if not isinstance(entry, dict) or type(exp_id) not in (str, int):
            raise DataError(f"{place}: expression {exp_id!r} is not an object with an id; take this file again")
        yield str(exp_id), entry


def _by_is_sent(where: str, entry: dict[str, Any], video: dict[str, Any]) -> str:
    is_sent = entry.get("is_sent", video.get("is_sent"))
    if is_sent is None:
        return ""
    if not isinstance(is_sent, int) or is_sent not in (0, 1):
        raise DataError(f'{where}: "is_sent" is {is_sent!r}; wanted is true or false')
    return "sentence" if is_sent else "phrase"


def _object_ids(where: str, entry: dict[str, Any], ids_key: str, type_id: int | None) -> tuple[str, ...]:
    """Ids as strings, each once. Only ReVOS's expressions without target (type_id 2) may have none."""
    if type_id == 2:
        return ()
    value = entry.get(ids_key)
    values = value if isinstance(value, list) else [value]
    if any(type(item) not in (str, int) for item in values):
        raise DataError(f'{where}: its "{ids_key}" is {value!r}; wanted an object id or a list of them')
    if not values:
        raise DataError(f'{where}: names no object ("{ids_key}" is empty)')
    return tuple(dict.fromkeys(str(item) for item in values))


def _frame_names(place: str, content: dict[str, Any]) -> tuple[str, ...] | None:
    frames = content.get("frames")
    if frames is None:
        return None
    if not isinstance(frames, list) or not frames or any(type(name) not in (str, int) for name in frames):
        raise DataError(f'{place}: its "frames" must be a list of names that is not empty; take this file again')
    return tuple(without_ending(str(name), JPEG_ENDINGS) for name in frames)


@dataclass(frozen=True)
class AnnotatedSplit:
    """Expressions of a split with its frames and masks.

    `entries` maps each video to its raw annotation; `ids_key` names the object ids in it (None where hidden);
    `masks` is None where the split hides them; `files` are the annotation files, for digests.
    """

    dataset: str
    split: str
    annotation: Path
    entries: Mapping[str, Any]
    ids_key: str | None
    images: Path
    masks: MaskSource | None
    files: tuple[Path, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise DataError(f"{self.annotation}: lists no video, an empty split", file=str(self.annotation))
        if not os.path.isdir(self.images):
            raise DataError(f"{self.images}: this folder of frames is missing", file=str(self.images))

    def videos(self) -> list[str]:
        """Names of the videos, in the annotation's order."""
        return list(self.entries)

    def record(self, video: str) -> VideoRecord:
        """Read one video's annotation and masks; its frames are read when asked for.

        Raises a UserError, or OSError where a file or folder of the video cannot be opened.
        """
        annotation = self._annotation(video)
        frames = open_frames(self._places, video, annotation)
        height, width = frames.size
        masks = Masks({})
        if self.masks is not None:
            masks = _masks_of(frames, self.masks, video, _named_objects(annotation))
            for expression in annotation.expressions:
                unknown = [object_id for object_id in expression.object_ids if object_id not in masks.objects]
                if unknown:
                    place = self.masks.paths(video, unknown)[0]
                    raise DataError(
                        f"{self.annotation}: video {video} expression {expression.id} names object {unknown[0]}, "
                        f"which has no mask in {place}",
                        file=str(place),
                        video=video,
                    )
        return VideoRecord(
            self.dataset,
            self.split,
            video,
            height,
            width,
            frames,
            masks.objects,
            annotation.expressions,
            masks.void,
        )

    def open_masks(self) -> None:
        """Read the masks' file, where all videos share one. Raises DataError: then no video can be read."""
        if self.masks is not None:
            self.masks.open()

    def stamp(self, video: str) -> str:
        """SHA-256 over a video's annotation and over names, sizes and times of its files: changes when they do."""
        try:
            annotation = self._annotation(video)
            paths = self._places.of(video) or [self.images / video]
            if self.masks is not None:
                paths += self.masks.paths(video, _named_objects(annotation))
        except UserError as error:
            return digest_of([self.entries[video], str(error)])
        return digest_of([self.entries[video], self.ids_key, [file_stamps(path) for path in paths]])

    @cached_property
    def _places(self) -> VideoPlaces:
        return VideoPlaces(self.images)

    @cached_property
    def _meeting(self) -> dict[str, str]:
        return meeting(self.entries)

    def _annotation(self, video: str) -> VideoAnnotation:
        if video not in self.entries:
            raise DataError(f"{self.annotation}: has no video {video}", file=str(self.annotation), video=video)
        annotation = parse_video(self.annotation, video, self.entries[video], self.ids_key)
        if video in self._meeting:
            file = str(self.annotation)
            raise one_folder(video, self._meeting[video], "video", file, file=file)
        return annotation


def read_entries(path: Path) -> dict[str, Any]:
    """The "videos" of a file of expressions. Raises DataError."""
    videos = read_annotation(path).get("videos")
    if not isinstance(videos, dict):
        raise DataError(f'{path}: has no "videos"; this is not a file of expressions', file=str(path))
    return videos


def open_frames(places: VideoPlaces, video: str, annotation: VideoAnnotation) -> FrameFolder | VideoFile:
    """IMAGES/VIDEO as a folder of JPEG files, or else IMAGES/VIDEO.mp4 (or another video ending, in any case).

    Raises DataError where there is neither, or several files have the video's name.
    """
    place = places.one(video)
    if place is None:
        place = places.images / video
        raise DataError(
            f"{place}: this folder of frames is missing (nor is there a video file {video}.mp4 or the like)",
            file=str(place),
            video=video,
        )
    if os.path.isdir(place):
        return FrameFolder(place, annotation.frame_names)
    return VideoFile(place, annotation.frame_names)


def _masks_of(frames: FrameFolder | VideoFile, source: MaskSource, video: str, object_ids: list[str]) -> Masks:
    """Masks of a video. Raises DataError where frames carry an orientation and masks have the size of the other one."""
    if not frames.orientation.swaps:
        return source.read(video, frames.names, frames.size, object_ids)
    height, width = frames.size
    hint = (
        f"{frames.origin(0)}: the frames carry an orientation ({frames.orientation}) and are taken as {height}x{width} "
        "(height x width), but masks have the size of the other orientation; turn the frames' pixels to fit the masks, "
        "then remove the orientation"
    )
    try:
        masks = source.read(video, frames.names, frames.size, object_ids)
    except UserError as error:
        if f"{width}x{height}" not in str(error):
            raise
        raise DataError(f"{error}. {hint}", file=error.file, video=video, frame=error.frame) from error
    sizes = {tuple(code["size"]) for codes in masks.objects.values() for code in codes if code is not None}
    if any(max(abs(rows - height), abs(columns - width)) > SIZE_SLACK for rows, columns in sizes):
        raise DataError(hint, file=frames.origin(0), video=video)
    return masks


def _named_objects(annotation: VideoAnnotation) -> list[str]:
    """Ids that the expressions name, each once, in their order."""
    return list(
        dict.fromkeys(object_id for expression in annotation.expressions for object_id in expression.object_ids)
    )


def file_stamps(path: Path) -> list[tuple[str, int, int]]:
    """(name, size, time) of a file, or of each file of a folder; empty where there is none.

    What cannot be looked at (a dangling link, a folder without rights, a name that is too long) has the error's number
    instead of size and time: reading it then fails with its reason, and the stamp changes when it is fixed.
    """
    try:
        names = sorted(os.listdir(path))
    except NotADirectoryError:
        return [_file_stamp(path)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [(path.name, -1, getattr(error, "errno", None) or 0)]
    return [_file_stamp(path / name) for name in names]


def _file_stamp(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:
        return path.name, -1, getattr(error, "errno", None) or 0
    return path.name, stat.st_size, stat.st_mtime_ns


def digest_of(content: Any) -> str:
    """SHA-256 of JSON content, in hexadecimal."""
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
