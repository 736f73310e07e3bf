"""A split of a raw dataset: names first, then each video alone, so that workers read only what they write."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glus.common.errors import DataError, UserError
from glus.common.names import meeting, one_folder
from glus.data_pipeline.raw.annotation_file import read_annotation
from glus.data_pipeline.raw.annotations import VideoAnnotation, parse_video
from glus.data_pipeline.raw.frame_names import VideoPlaces
from glus.data_pipeline.raw.frames import FrameFolder, VideoFile
from glus.data_pipeline.raw.mask_sources import Masks, MaskSource
from glus.data_pipeline.raw.masks import SIZE_SLACK
from glus.data_pipeline.raw.records import VideoRecord


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
