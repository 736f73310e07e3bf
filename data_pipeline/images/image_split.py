"""A split of an image dataset: each image is a video of one frame, named by the picture's stem."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from glus.common.errors import DataError, UserError
from glus.common.json_file import is_unfit, shortened
from glus.common.names import meeting, one_folder
from glus.data_pipeline.raw.annotated_split import digest_of, file_stamps
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, NamedFiles, without_ending
from glus.data_pipeline.raw.frames import FrameFolder
from glus.data_pipeline.raw.records import Expression, Rle, VideoRecord, check_names


@dataclass(frozen=True)
class ImageAnnotation:
    """Objects of an image with their codes (None: no pixel), what is said of them, and pixels that count nowhere."""

    objects: Mapping[str, Rle | None]
    expressions: tuple[Expression, ...]
    void: Rle | None = None


class ImageSource(Protocol):
    """Where a dataset keeps its images and their annotations."""

    def pictures(self) -> Mapping[str, Path]:
        """Name of each image -> where its JPEG should be, in the split's order."""
        ...

    def annotation(self, name: str, height: int, width: int) -> ImageAnnotation:
        """The annotation of an image; `height` and `width` are the picture's. Raises a UserError."""
        ...

    def content(self, name: str) -> Any:
        """What the annotation files say of an image, as JSON: a shard is written again when it changes."""
        ...

    def paths(self, name: str) -> list[Path]:
        """Files that belong to this image alone, its picture aside."""
        ...


@dataclass(frozen=True)
class ImageSplit:
    """Images of a split as videos of one frame; `files` are the annotation files that all images share, for digests."""

    dataset: str
    split: str
    place: Path
    source: ImageSource
    files: tuple[Path, ...]

    def __post_init__(self) -> None:
        if not self._pictures:
            raise DataError(f"{self.place}: lists no image, an empty split", file=str(self.place))

    def videos(self) -> list[str]:
        """Names of the images, in the split's order."""
        return list(self._pictures)

    def record(self, video: str) -> VideoRecord:
        """Read one image's annotation and its JPEG's header.

        Raises a UserError, or OSError where a file of the image cannot be opened.
        """
        path = self._picture(video)
        if not os.path.lexists(path):
            raise DataError(
                f"{path}: this image is missing, although {self.place.name} lists it; download it again",
                file=str(path),
                video=video,
            )
        files = self._folders.setdefault(path.parent, NamedFiles(path.parent, JPEG_ENDINGS))
        frames = FrameFolder(path.parent, (without_ending(path.name, JPEG_ENDINGS),), files=files)
        height, width = frames.size
        try:
            found = self.source.annotation(video, height, width)
        except UserError as error:
            error.video = error.video or video
            raise
        for expression in found.expressions:
            _check_text(expression, f"{self.place}: image {video} expression {expression.id}")
        check_names(str(self.place), video, frames.names, found.expressions, found.objects)
        void: list[Rle | None] | None = None if found.void is None else [found.void]
        objects = {name: [code] for name, code in found.objects.items()}
        return VideoRecord(self.dataset, self.split, video, height, width, frames, objects, found.expressions, void)

    def open_masks(self) -> None:
        """Everything that images share was read with the split."""

    def stamp(self, video: str) -> str:
        """SHA-256 over an image's annotation and over names, sizes and times of its files: changes when they do."""
        paths = [self._picture(video), *self.source.paths(video)]
        return digest_of([self.source.content(video), [file_stamps(path) for path in paths]])

    @cached_property
    def _pictures(self) -> Mapping[str, Path]:
        return self.source.pictures()

    @cached_property
    def _meeting(self) -> dict[str, str]:
        return meeting(self._pictures)

    @cached_property
    def _folders(self) -> dict[Path, NamedFiles]:
        return {}

    def _picture(self, video: str) -> Path:
        if video not in self._pictures:
            raise DataError(f"{self.place}: has no image {video}", file=str(self.place), video=video)
        if video in self._meeting:
            file = str(self.place)
            raise one_folder(video, self._meeting[video], "image", file, file=file)
        return self._pictures[video]


def _check_text(expression: Expression, where: str) -> None:
    if is_unfit(expression.text):
        raise DataError(f"{where}: its text {shortened(expression.text)} holds NUL or half of a surrogate pair")
    if not expression.text.strip():
        raise DataError(f"{where}: has no text; take this file again")


def listed(folder: Path, what: str, endings: tuple[str, ...]) -> NamedFiles:
    """The files of a folder. Raises DataError where it is missing or holds none; `what` names them."""
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder of {what} is missing; put the dataset there as released")
    files = NamedFiles(folder, endings)
    if not files.files:
        raise DataError(f"{folder}: holds no {what}; put the dataset there as released", file=str(folder))
    return files
