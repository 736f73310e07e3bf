"""A split of a raw dataset: names first, then each video alone, so that workers read only what they write."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glus.data_pipeline.datasets.annotations import VideoAnnotation, parse_video
from glus.data_pipeline.datasets.json_file import read_json
from glus.data_pipeline.datasets.mask_sources import MaskSource
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.frames import VIDEO_ENDINGS, FrameFolder, VideoFile
from glus.data_pipeline.records import VideoRecord


@dataclass(frozen=True)
class AnnotatedSplit:
    """Expressions of a split beside its frames and masks.

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
        if not self.images.is_dir():
            raise DataError(f"{self.images}: this folder of frames is missing", file=str(self.images))

    def videos(self) -> list[str]:
        """Names of the videos, in the annotation's order."""
        return list(self.entries)

    def record(self, video: str) -> VideoRecord:
        """Read one video's annotation and masks; its frames are read when asked for. Raises DataError."""
        annotation = self._annotation(video)
        frames = open_frames(self.images, video, annotation)
        height, width = frames.size
        objects = {}
        if self.masks is not None:
            objects = self.masks.objects(video, frames.names, frames.size, _named_objects(annotation))
            for expression in annotation.expressions:
                unknown = [object_id for object_id in expression.object_ids if object_id not in objects]
                if unknown:
                    place = self.masks.paths(video, unknown)[0]
                    raise DataError(
                        f"{self.annotation}: video {video} expression {expression.id} names object {unknown[0]}, "
                        f"which has no mask in {place}",
                        file=str(place),
                        video=video,
                    )
        return VideoRecord(self.dataset, self.split, video, height, width, frames, objects, annotation.expressions)

    def open_masks(self) -> None:
        """Read the masks' file, where all videos share one. Raises DataError: then no video can be read."""
        if self.masks is not None:
            self.masks.open()

    def stamp(self, video: str) -> str:
        """SHA-256 over a video's annotation and over names, sizes and times of its files: changes when they do."""
        try:
            annotation = self._annotation(video)
        except DataError as error:
            return _digest([self.entries[video], str(error)])
        paths = frame_places(self.images, video)
        if self.masks is not None:
            paths += self.masks.paths(video, _named_objects(annotation))
        return _digest([self.entries[video], self.ids_key, [_file_stamps(path) for path in paths]])

    def _annotation(self, video: str) -> VideoAnnotation:
        if video not in self.entries:
            raise DataError(f"{self.annotation}: has no video {video}", file=str(self.annotation), video=video)
        return parse_video(self.annotation, video, self.entries[video], self.ids_key)


def read_entries(path: Path) -> dict[str, Any]:
    """The "videos" of a file of expressions. Raises DataError."""
    videos = read_json(path).get("videos")
    if not isinstance(videos, dict):
        raise DataError(f'{path}: has no "videos"; this is not a file of expressions', file=str(path))
    return videos


def open_frames(images: Path, video: str, annotation: VideoAnnotation) -> FrameFolder | VideoFile:
    """IMAGES/VIDEO as a folder of JPEG files, or else IMAGES/VIDEO.mp4 (or another video ending). Raises DataError."""
    for place in frame_places(images, video):
        if place.is_dir():
            return FrameFolder(place, annotation.frame_names)
        if place.is_file():
            return VideoFile(place, annotation.frame_names)
    raise DataError(
        f"{images / video}: this folder of frames is missing (nor is there a video file {video}.mp4 or the like)",
        file=str(images / video),
        video=video,
    )


def frame_places(images: Path, video: str) -> list[Path]:
    """Where a video's frames may be: a folder, or a file of any video ending."""
    return [images / video, *(images / f"{video}{ending}" for ending in VIDEO_ENDINGS)]


def _named_objects(annotation: VideoAnnotation) -> list[str]:
    """Ids that the expressions name, each once, in their order."""
    return list(
        dict.fromkeys(object_id for expression in annotation.expressions for object_id in expression.object_ids)
    )


def _file_stamps(path: Path) -> list[tuple[str, int, int]]:
    """(name, size, time) of a file, or of each file of a folder; empty where there is none."""
    files: Iterable[Path] = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    found = [(file.name, file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
