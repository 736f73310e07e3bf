"""Access to a split's shards: frames, masks and expressions of any video by offset, or all of them front to back."""

import difflib
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError, InputError
from glus.common.json_file import parse_json
from glus.data_pipeline.raw.jpeg import decode_jpeg
from glus.data_pipeline.raw.masks import unions_into
from glus.data_pipeline.raw.records import Expression, Rle
from glus.data_pipeline.shards.index import (
    AGAIN,
    FORMAT_VERSION,
    INDEX_NAME,
    MANIFEST_NAME,
    VOID_KEY,
    Manifest,
    Span,
    manifest_from_json,
    read_codes,
)
from glus.data_pipeline.shards.index import VideoEntry as VideoEntry
from glus.data_pipeline.shards.index_table import IndexTable, check_ends
from glus.data_pipeline.shards.storage import SequentialReader, Storage

#: Shards of a split that are kept open.
OPEN_SHARDS = 64
#: Datasets whose label maps have void pixels.
WITH_VOID = ("ref_davis17", "refer_youtube_vos")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamedVideo:
    """A video as it passes by: its number in `ShardedSplit.videos`, its masks' codes, and its frames' JPEG bytes.

    `void` are the codes of the pixels that nobody annotated, None where there are none.
    """

    number: int
    entry: VideoEntry
    masks: dict[str, list[Rle | None]]
    jpegs: tuple[bytes, ...]
    void: list[Rle | None] | None = None


class ShardedSplit:
    """One split as `glus prepare` wrote it. Threads may share it; other processes get it by pickle."""

    def __init__(self, storage: Storage, manifest: Manifest, index: IndexTable, source: Path | bytes) -> None:
        """Use `open`. `source` is what `index` was opened from."""
        self.storage = storage
        self.manifest = manifest
        self.index = index
        #: Metadata of each video.
        self.videos: Sequence[VideoEntry] = index
        self._source = source
        self._opened = lru_cache(OPEN_SHARDS)(self._open_shard)
        self._last_masks: tuple[int, dict[str, list[Rle | None]]] | None = None

    @classmethod
    def open(cls, folder: Path | str | Storage) -> "ShardedSplit":
        """Read manifest and index of `folder`, a path or URL, and check the shards' sizes.

        Raises DataError where the folder is absent, empty, half-written, damaged or of another version.
        """
        storage = Storage.at(folder)
        manifest = _read_manifest(storage)
        where = storage.path(INDEX_NAME)
        source: Path | bytes
        try:
            if storage.local:
                source = storage.local / INDEX_NAME
                check_ends(source)
                digest = storage.sha256(INDEX_NAME)
            else:
                source = storage.read(INDEX_NAME)
                digest = hashlib.sha256(source).hexdigest()
        except FileNotFoundError:
            raise DataError(f"{where}: the index is missing; run `glus prepare` again") from None
        except InputError as error:
            raise DataError(str(error), file=where) from error
        except ValueError as error:
            raise DataError(f"{where}: a damaged index ({error}); run `glus prepare` again", file=where) from error
        if digest != manifest.index_sha256:
            raise DataError(f"{where}: not the index that the manifest vouches for; run `glus prepare` again")
        try:
            index = _index(source, manifest)
            index.check_within([shard.size for shard in manifest.shards])
        except (OSError, ValueError) as error:
            raise DataError(f"{where}: a damaged index ({error}); run `glus prepare` again") from error
        if not index:
            raise DataError(f"{storage}: these shards hold no video; see the quarantine in {MANIFEST_NAME}")
        for shard in manifest.shards:
            size = storage.size(shard.name)
            if size is None:
                raise DataError(f"{storage.path(shard.name)}: this shard is missing; run `glus prepare` again")
            if size != shard.size:
                raise DataError(
                    f"{storage.path(shard.name)}: {size} bytes, the manifest says {shard.size}; the shard was cut or "
                    "replaced, run `glus prepare` again"
                )
        if manifest.version < FORMAT_VERSION and manifest.dataset in WITH_VOID:
            _log.warning(
                "%s: shards of format version %d, which drop void pixels: metrics and losses count them as background; "
                "run `glus prepare` again",
                storage,
                manifest.version,
            )
        return cls(storage, manifest, index, source)

    @property
    def dataset(self) -> str:
        return self.manifest.dataset

    @property
    def split(self) -> str:
        return self.manifest.split

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with any byte of the shards or the index."""
        return self.manifest.fingerprint

    def verify(self) -> None:
        """Hash every shard and compare with the manifest. Raises DataError for the first that differs."""
        for shard in self.manifest.shards:
            self._compare(shard.name, shard.sha256, self.storage.sha256(shard.name))

    def _compare(self, name: str, wanted: str, digest: str) -> None:
        if digest != wanted:
            raise DataError(
                f"{self.storage.path(name)}: SHA-256 {digest[:12]}..., the manifest says {wanted[:12]}...; the shard "
                "was damaged or replaced, delete it and run `glus prepare` again",
                file=self.storage.path(name),
            )

    def stream(self, shards: Sequence[str] | None = None) -> Iterator[StreamedVideo]:
        """All videos in the order of the shards, each shard read from front to back in large pieces.

        For passes over everything, and for object stores, where that is much faster than reading piece by piece.
        `shards` names some of `manifest.shards`. Raises DataError where a shard ends early, or is not the one that the
        manifest vouches for: the latter is known only at its end.
        """
        for shard in self.manifest.shards:
            if shards is not None and shard.name not in shards:
                continue
            reader = SequentialReader(self.storage.blocks(shard.name), self.storage.path(shard.name))
            for number in self.index.videos_of(shard.name):
                _, masks, *jpegs = [reader.take(span) for span in self.index.spans(number)[1]]
                codes = self._masks(number, masks)
                void = codes.pop(VOID_KEY, None)
                yield StreamedVideo(number, self.videos[number], codes, tuple(jpegs), void)
            self._compare(shard.name, shard.sha256, reader.digest())

    def read_jpegs(self, video: int, frames: Sequence[int]) -> Iterator[bytes]:
        """The original bytes of the frames."""
        shard, (_, _, *spans) = self.index.spans(video)
        for frame in frames:
            if not 0 <= frame < len(spans):
                raise IndexError(f"video {self.videos[video].video} has frames 0 to {len(spans) - 1}, not {frame}")
        return self._read(shard, [spans[frame] for frame in frames])

    def read_frames(
        self, video: int, frames: Sequence[int], into: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 [N, H, W, 3] RGB of the frames at their own size, in the order asked for, in `into` where it is given.

        Raises DataError.
        """
        pictures = np.empty((len(frames), *self.index.size(video), 3), np.uint8) if into is None else into
        for place, (frame, content) in enumerate(zip(frames, self.read_jpegs(video, frames), strict=True)):
            try:
                decode_jpeg(content, pictures[place])
            except ValueError as error:
                shard, entry = self.storage.path(self.index.spans(video)[0]), self.videos[video]
                raise DataError(
                    f"{shard}: video {entry.video} frame {entry.frame_names[frame]} cannot be decoded ({error}); fix "
                    "the released frame, or take the video out, and run `glus prepare` again",
                    file=shard,
                    video=entry.video,
                    frame=entry.frame_names[frame],
                ) from error
        return pictures

    def read_masks(self, video: int, object_ids: Sequence[str], frames: Sequence[int]) -> NDArray[np.bool_]:
        """bool [O, N, H, W]: masks of the objects at the frames' size. Raises DataError on an unknown object."""
        entry = self.videos[video]
        masks = np.empty((len(object_ids), len(frames), entry.height, entry.width), dtype=np.bool_)
        alone = self.read_target_codes(video, [frozenset([object_id]) for object_id in object_ids], frames)
        unions_into([plane for of_object in masks for plane in of_object], alone)
        return masks

    def read_target(self, video: int, expression: Expression, frames: Sequence[int]) -> NDArray[np.bool_]:
        """bool [N, H, W]: union of the masks of the expression's objects; all False where it has none."""
        return self.read_targets(video, [expression], frames)[0]

    def read_targets(self, video: int, expressions: Sequence[Expression], frames: Sequence[int]) -> NDArray[np.bool_]:
        """bool [E, N, H, W]: `read_target` of each expression; an object set is decoded once, however many name it."""
        entry = self.videos[video]
        sets, set_of = distinct_sets(expressions)
        targets = np.empty((len(sets), len(frames), entry.height, entry.width), np.bool_)
        unions_into([plane for of_set in targets for plane in of_set], self.read_target_codes(video, sets, frames))
        return targets[set_of]

    def read_target_codes(
        self, video: int, sets: Sequence[frozenset[str]], frames: Sequence[int]
    ) -> list[list[Rle | None]]:
        """The codes of the objects' masks for each of S object sets, and for each of its N frames: S * N lists."""
        of_sets = [[self._codes(video, object_id) for object_id in sorted(objects)] for objects in sets]
        return [[code[frame] for code in codes] for codes in of_sets for frame in frames]

    def read_void(self, video: int, frames: Sequence[int]) -> NDArray[np.bool_] | None:
        """bool [N, H, W]: pixels that nobody annotated, which count in no metric and no loss; None where none are."""
        codes = self.read_void_codes(video, frames)
        if codes is None:
            return None
        entry = self.videos[video]
        void = np.empty((len(codes), entry.height, entry.width), np.bool_)
        unions_into(list(void), [[code] for code in codes])
        return void

    def read_void_codes(self, video: int, frames: Sequence[int]) -> list[Rle | None] | None:
        """Their codes, one a frame; None where none of these frames has any."""
        void = self._all_codes(video).get(VOID_KEY)
        codes = [] if void is None else [void[frame] for frame in frames]
        return codes if any(code is not None for code in codes) else None

    def _codes(self, video: int, object_id: str) -> list[Rle | None]:
        codes = self._all_codes(video)
        if object_id not in codes:
            entry = self.videos[video]
            raise DataError(
                f"{self.dataset}/{self.split}: video {entry.video} has no object {object_id}; "
                f"it has {', '.join(entry.object_ids) or 'none'}",
                video=entry.video,
            )
        return codes[object_id]

    def _all_codes(self, video: int) -> dict[str, list[Rle | None]]:
        # Expressions of one video are read one after the other, so the last video's masks are kept.
        last = self._last_masks
        if last is None or last[0] != video:
            shard, (_, span, *_) = self.index.spans(video)
            last = (video, self._masks(video, next(self._read(shard, [span]))))
            self._last_masks = last
        return last[1]

    def _masks(self, video: int, content: bytes) -> dict[str, list[Rle | None]]:
        """The codes of a video's masks. Raises DataError where they are not the bytes that were written."""
        if zlib.crc32(content) != self.index.masks_crc(video):
            name, where = self.videos[video].video, self.storage.path(self.index.spans(video)[0])
            raise DataError(
                f"{where}: the masks of video {name} are not those that were written; the shard was damaged, delete it "
                "and run `glus prepare` again",
                file=where,
                video=name,
            )
        return read_codes(content, self.videos[video], self.storage.path(self.index.spans(video)[0]))

    def _read(self, shard: str, spans: Sequence[Span]) -> Iterator[bytes]:
        """The pieces of a shard: of a local file each when it is asked for, so that it is still in the caches then."""
        where = self.storage.path(shard)
        try:
            if self.storage.local:
                opened = self._opened(shard)
                pieces: Iterator[bytes] = (os.pread(opened.descriptor, size, offset) for offset, size in spans)
            else:
                pieces = iter(self.storage.read_spans(shard, spans))
        except FileNotFoundError:
            raise DataError(f"{where}: this shard is missing; run `glus prepare` again", file=where) from None
        for (offset, size), piece in zip(spans, pieces, strict=True):
            if len(piece) != size:
                raise DataError(f"{where}: ends before byte {offset + size}; run `glus prepare` again", file=where)
            yield piece

    def _open_shard(self, shard: str) -> "_OpenShard":
        return _OpenShard(f"{self.storage.local}/{shard}")

    def close(self) -> None:
        """Close the shards' files; reading opens them again."""
        self._opened.cache_clear()

    def __enter__(self) -> "ShardedSplit":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped index is mapped again over there, not sent.
        return _reopened, (self.storage, self.manifest, self._source)


def distinct_sets(expressions: Sequence[Expression]) -> tuple[list[frozenset[str]], list[int]]:
    """The object sets that expressions name, each once, and which of them each expression names."""
    named = [expression.object_set for expression in expressions]
    sets = list(dict.fromkeys(named))
    return sets, [sets.index(each) for each in named]


class _OpenShard:
    """A file's descriptor, closed when the last thread that reads it lets go."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def open_splits(root: Path | str, names: Sequence[str] | None = None) -> list[ShardedSplit]:
    """Open the splits "dataset/split" below `root`, a path or URL, in the order named; all of them where none are.

    Raises DataError where a name is not there (with the nearest that is) or a split cannot be opened.
    """
    storage = Storage.at(root)
    if not storage.exists():
        raise DataError(f"{storage}: this folder of shards does not exist; run `glus prepare` first")
    known = sorted(f"{dataset}/{split}" for dataset in storage.folders() for split in storage.below(dataset).folders())
    if not known:
        raise DataError(f"{storage}: holds no shards; run `glus prepare` first")
    for name in names or []:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise DataError(f"{storage}: no split {name} here; did you mean {near}? Known: {', '.join(known)}")
    return [ShardedSplit.open(storage.below(*name.split("/"))) for name in (names if names is not None else known)]


def _index(source: Path | bytes, manifest: Manifest) -> IndexTable:
    return IndexTable.open(source, manifest.dataset, manifest.split, [shard.name for shard in manifest.shards])


def _reopened(storage: Storage, manifest: Manifest, source: Path | bytes) -> ShardedSplit:
    return ShardedSplit(storage, manifest, _index(source, manifest), source)


def _read_manifest(storage: Storage) -> Manifest:
    """The manifest of a folder, or a DataError that says in which state the folder is."""
    path = storage.path(MANIFEST_NAME)
    try:
        content = storage.read(MANIFEST_NAME)
    except FileNotFoundError:
        if not storage.exists():
            raise DataError(f"{storage}: this folder of shards does not exist; run `glus prepare` first") from None
        if storage.files() or storage.folders():
            raise DataError(
                f"{storage}: shards without a manifest, so not finished; run `glus prepare` again"
            ) from None
        raise DataError(f"{storage}: an empty folder, no shards; run `glus prepare` first") from None
    return manifest_from_json(parse_json(content, path, raises=DataError, remedy=AGAIN, file=path), path)
