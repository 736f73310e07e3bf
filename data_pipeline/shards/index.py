"""What a split's index and manifest hold, and the JSON of manifest and parts. docs/data_format.md has every field.

The index itself is a table: index_table.py.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import orjson

from glus.common.errors import DataError
from glus.common.json_file import parsed_as
from glus.common.names import check_name, check_path, check_unique
from glus.data_pipeline.raw.masks import check_code
from glus.data_pipeline.raw.records import Expression, Rle

#: What to do about a damaged manifest.
AGAIN = "run `glus prepare` again"
#: Raised whenever a reader of the older format would misread the newer. Version 3 keeps void pixels.
FORMAT_VERSION = 3
#: Version 2 is the same but for void, which its readers would score as background.
READABLE_VERSIONS = (2, 3)
#: Next to the objects in masks.json: the pixels that nobody annotated. No object has this id (common/names.py).
VOID_KEY = "/void"
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.arrow"

#: (offset of the first content byte in the tar, number of bytes)
Span = tuple[int, int]


@dataclass(frozen=True)
class VideoEntry:
    """One video of a split, without its frames and masks. `object_ids` are those that have masks."""

    dataset: str
    split: str
    video: str
    height: int
    width: int
    frame_names: tuple[str, ...]
    expressions: tuple[Expression, ...]
    object_ids: tuple[str, ...]

    def object_sets(self) -> dict[int, frozenset[str]]:
        """Number of each expression whose objects are known -> its object set."""
        return {number: each.object_set for number, each in enumerate(self.expressions) if each.object_ids}

    def groups(self) -> list[tuple[str, ...]]:
        """Ids of expressions that share an object set, a tuple a set; expressions without target are in none."""
        found: dict[frozenset[str], list[str]] = {}
        for number, objects in self.object_sets().items():
            found.setdefault(objects, []).append(self.expressions[number].id)
        return [tuple(ids) for ids in found.values()]


@dataclass(frozen=True)
class IndexedVideo:
    """Where a video's members lie: the shard's file name and a span for each member; and the CRC-32 of its masks."""

    entry: VideoEntry
    shard: str
    key: str
    metadata: Span
    masks: Span
    frames: tuple[Span, ...]
    masks_crc: int


@dataclass(frozen=True)
class ShardSummary:
    """One tar: its file name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """What a split holds. `groups` counts distinct object sets that expressions name, video by video."""

    videos: int
    frames: int
    objects: int
    expressions: int
    groups: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    @staticmethod
    def of(entries: Iterable[VideoEntry]) -> "Counts":
        videos = frames = objects = expressions = groups = 0
        for entry in entries:
            videos += 1
            frames += len(entry.frame_names)
            objects += len(entry.object_ids)
            expressions += len(entry.expressions)
            groups += len(entry.groups())
        return Counts(videos, frames, objects, expressions, groups)


@dataclass(frozen=True)
class BadItem:
    """A video that was left out, why, and the file and frame where known."""

    video: str
    reason: str
    file: str | None = None
    frame: str | None = None


@dataclass(frozen=True)
class Note:
    """What was noticed of a video that was kept (frames lost, a warning of a decoder); `video` is "" for the split."""

    video: str
    text: str


@dataclass(frozen=True)
class Manifest:
    """What vouches for a split: written last, so that a folder without it is incomplete.

    `source` maps the annotation files to their SHA-256; `quarantine` lists the videos that were left out, `notes` what
    was noticed of the others.
    """

    dataset: str
    split: str
    counts: Counts
    shards: tuple[ShardSummary, ...]
    index_sha256: str
    source: dict[str, str]
    quarantine: tuple[BadItem, ...]
    version: int = FORMAT_VERSION
    notes: tuple[Note, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the shards' and the index's digests; where the source lay does not matter."""
        content = [self.version, self.dataset, self.split, self.index_sha256, [asdict(shard) for shard in self.shards]]
        return hashlib.sha256(json_bytes(content)).hexdigest()


def json_bytes(content: Any) -> bytes:
    """JSON in one form only: no spaces, ASCII, keys in the order given; a newline at the end."""
    return (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode("ascii")


def entry_to_json(entry: VideoEntry) -> dict[str, Any]:
    """The content of KEY.video.json."""
    return {
        "dataset": entry.dataset,
        "split": entry.split,
        "video": entry.video,
        "height": entry.height,
        "width": entry.width,
        "frame_names": list(entry.frame_names),
        "object_ids": list(entry.object_ids),
        "expressions": [dict(vars(expression)) for expression in entry.expressions],
        "groups": [list(group) for group in entry.groups()],
    }


def entry_from_json(content: dict[str, Any]) -> VideoEntry:
    """Raises KeyError or TypeError where the content has another form."""
    return VideoEntry(
        dataset=content["dataset"],
        split=content["split"],
        video=content["video"],
        height=content["height"],
        width=content["width"],
        frame_names=tuple(content["frame_names"]),
        expressions=tuple(
            Expression(
                id=item["id"],
                text=item["text"],
                object_ids=tuple(item["object_ids"]),
                kind=item["kind"],
                type_id=item["type_id"],
            )
            for item in content["expressions"]
        ),
        object_ids=tuple(content["object_ids"]),
    )


def index_to_json(videos: Sequence[IndexedVideo]) -> list[dict[str, Any]]:
    """Videos of a shard as a part keeps them."""
    return [
        {
            "shard": video.shard,
            "key": video.key,
            "members": {"video": video.metadata, "masks": video.masks, "frames": video.frames},
            "masks_crc": video.masks_crc,
            "video": entry_to_json(video.entry),
        }
        for video in videos
    ]


def index_from_json(content: list[dict[str, Any]]) -> list[IndexedVideo]:
    """Raises KeyError, TypeError or ValueError where the content has another form."""
    return [
        IndexedVideo(
            entry=entry_from_json(item["video"]),
            shard=item["shard"],
            key=item["key"],
            metadata=_span(item["members"]["video"]),
            masks=_span(item["members"]["masks"]),
            frames=tuple(_span(span) for span in item["members"]["frames"]),
            masks_crc=item["masks_crc"],
        )
        for item in content
    ]


def _span(pair: Sequence[int]) -> Span:
    offset, size = pair
    return offset, size


def read_codes(content: bytes, entry: VideoEntry, where: str) -> dict[str, list[Rle | None]]:
    """The content of masks.json. Raises DataError where it has another form: then the shard is not one of ours."""
    try:
        masks: dict[str, list[Rle | None]] = orjson.loads(content)
        for codes in masks.values():
            if len(codes) != len(entry.frame_names):
                raise ValueError(f"{len(codes)} masks for {len(entry.frame_names)} frames")
            for code in codes:
                if code is not None:
                    check_code(code, entry.height, entry.width)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: the masks of video {entry.video} are damaged ({error}); run `glus prepare` again",
            file=where,
            video=entry.video,
        ) from error
    return masks


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The content of manifest.json."""
    return {
        "format": "glus-shards",
        "version": manifest.version,
        "dataset": manifest.dataset,
        "split": manifest.split,
        "counts": asdict(manifest.counts),
        "shards": [asdict(shard) for shard in manifest.shards],
        "index_sha256": manifest.index_sha256,
        "source": manifest.source,
        "quarantine": [asdict(item) for item in manifest.quarantine],
        "notes": [asdict(note) for note in manifest.notes],
    }


def manifest_from_json(content: Any, path: Path | str) -> Manifest:
    """Raises DataError where `content` is another format, another version, or incomplete.

    Raises InputError where a shard or source has a name that leads out of its folder.
    """
    if not isinstance(content, dict) or content.get("format") != "glus-shards":
        raise DataError(f"{path}: not a manifest of shards; choose a folder that `glus prepare` wrote")
    if content.get("version") not in READABLE_VERSIONS:
        raise DataError(
            f"{path}: shards of format version {content.get('version')}, this program reads versions "
            f"{' and '.join(map(str, READABLE_VERSIONS))}; "
            "run `glus prepare` again into another folder"
        )
    fields = {name: value for name, value in content.items() if name != "format"}
    manifest = parsed_as(fields, Manifest, str(path), raises=DataError, remedy=AGAIN)
    _check_names(manifest, str(path))
    return manifest


def _check_names(manifest: Manifest, where: str) -> None:
    """Refuse names that lead out of the folder of shards, of predictions, or of the raw datasets."""
    check_name(manifest.dataset, "dataset", where)
    check_name(manifest.split, "split", where)
    for shard in manifest.shards:
        check_name(shard.name, "shard", where)
    check_unique([shard.name for shard in manifest.shards], "shard", where)
    for source in manifest.source:
        check_path(source, "source", where)
