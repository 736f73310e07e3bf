"""The one contract for raw data: what every dataset reader yields, whatever the dataset looked like on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glus.common.names import check_name, check_path, check_unique

#: COCO run-length mask: {"size": [height, width], "counts": str}. See masks.py for encoding and decoding.
Rle = dict[str, Any]


class FrameSource(Protocol):
    """The frames of one video in order, as original JPEG bytes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Frame names as released, without ending: "00005"."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the frames read so far: lost ones, damage, orientations. Most often empty."""
        ...

    def read_bytes(self, index: int) -> bytes:
        """The JPEG bytes of frame `index`, as released (a video file's frames are encoded once). Raises DataError."""
        ...

    def origin(self, index: int) -> str:
        """Where frame `index` comes from, for messages: a path, or a path and a frame number."""
        ...


@dataclass(frozen=True)
class Expression:
    """A referring expression. Ids are strings, whatever the file had.

    `object_ids` is empty where the expression has no target (ReVOS type_id 2) or where the split hides its targets.
    `kind` is "look", "motion", "relation", "several" or "reasoning" where the annotation says so; "sentence" or
    "phrase" by ReasonSeg's is_sentence and ReasonVOS's is_sent; else "".
    `type_id` is ReVOS's own: 0 referring, 1 reasoning, 2 without target.
    """

    id: str
    text: str
    object_ids: tuple[str, ...]
    kind: str = ""
    type_id: int | None = None

    @property
    def object_set(self) -> frozenset[str]:
        """The ids without their order: expressions of one set share their target mask."""
        return frozenset(self.object_ids)


@dataclass(frozen=True)
class VideoRecord:
    """One video of one dataset with its objects and expressions.

    `objects[id][t]` is the mask of an object in frame t, None where it is not seen; `height` and `width` are those of
    the frames (a released mask may be a pixel smaller: its RLE keeps its own size). `void[t]` are the pixels of frame t
    that nobody annotated, None where there are none; `void` is None where the video has none at all.
    """

    dataset: str
    split: str
    video: str
    height: int
    width: int
    frames: FrameSource
    objects: dict[str, list[Rle | None]]
    expressions: tuple[Expression, ...]
    void: list[Rle | None] | None = None


class RawSplit(Protocol):
    """A split of a raw dataset, videos (AnnotatedSplit) or images (ImageSplit): what `glus prepare` asks of it."""

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Annotation files that the videos share, for digests."""
        ...

    def videos(self) -> list[str]:
        """Names of the videos, in the split's order."""
        ...

    def record(self, video: str) -> VideoRecord:
        """Read one video. Raises a UserError, or OSError where one of its files cannot be opened."""
        ...

    def open_masks(self) -> None:
        """Read what all videos share. Raises DataError: then no video can be read."""
        ...

    def stamp(self, video: str) -> str:
        """SHA-256 that changes with a video's annotation or files."""
        ...


def check_names(
    where: str, video: str, frames: Sequence[str], expressions: Sequence[Expression], objects: Iterable[str]
) -> None:
    """Raise InputError for a name that cannot be that of a file, and for two frames or expressions of one name.

    `where` is the file or split that they come from. A video may be named FOLDER/VIDEO, as some released ones are.
    """
    check_path(video, "video", where)
    place = f"{where}: video {video}"
    for name in frames:
        check_name(name, "frame", place)
    check_unique(frames, "frame", place)
    for expression in expressions:
        check_name(expression.id, "expression", place)
    check_unique([expression.id for expression in expressions], "expression", place)
    for name in objects:
        check_name(name, "object", place)
