"""Random access over a split's shards: frames, masks and expressions of any video, by offset."""

import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glus.data_pipeline.errors import DataError
from glus.data_pipeline.index import (
    INDEX_NAME,
    MANIFEST_NAME,
    IndexedVideo,
    Manifest,
    Span,
    index_from_json,
    manifest_from_json,
)
from glus.data_pipeline.index import VideoEntry as VideoEntry
from glus.data_pipeline.masks import decode, union
from glus.data_pipeline.records import Expression, Rle

#: Frames as released: no rotation by EXIF, which the masks do not know of.
_DECODING = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class ShardedSplit:
    """One split as `glus prepare` wrote it. Safe to fork and to pickle: files are opened where they are read."""

    def __init__(self, folder: Path, manifest: Manifest, index: Sequence[IndexedVideo]) -> None:
        """Use `open`."""
        self.folder = folder
        self.manifest = manifest
        self.videos: tuple[VideoEntry, ...] = tuple(video.entry for video in index)
        self._index = tuple(index)
        self._descriptors: dict[str, int] = {}
        self._last_masks: tuple[int, dict[str, list[Rle | None]]] | None = None

    @classmethod
    def open(cls, folder: Path) -> "ShardedSplit":
        """Read manifest and index of `folder` and check the shards' sizes.

        Raises DataError where the folder is absent, empty, half-written, damaged or of another version.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        index_path = folder / INDEX_NAME
        content = _read_whole(index_path)
        if hashlib.sha256(content).hexdigest() != manifest.index_sha256:
            raise DataError(f"{index_path}: not the index that the manifest vouches for; run `glus prepare` again")
        try:
            index = index_from_json(json.loads(content)["videos"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{index_path}: a damaged index ({error!r}); run `glus prepare` again") from error
        if not index:
            raise DataError(f"{folder}: these shards hold no video; see the quarantine in {MANIFEST_NAME}")
        for shard in manifest.shards:
            path = folder / shard.name
            if not path.is_file():
                raise DataError(f"{path}: this shard is missing; run `glus prepare` again")
            size = path.stat().st_size
            if size != shard.size:
                raise DataError(
                    f"{path}: {size} bytes, the manifest says {shard.size}; the shard was cut or replaced, "
                    "run `glus prepare` again"
                )
        return cls(folder, manifest, index)

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
            path = self.folder / shard.name
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard.sha256:
                raise DataError(
                    f"{path}: SHA-256 {digest[:12]}..., the manifest says {shard.sha256[:12]}...; the shard was "
                    "damaged or replaced, delete it and run `glus prepare` again"
                )

    def read_jpegs(self, video: int, frames: Sequence[int]) -> list[bytes]:
        """The original bytes of the frames."""
        indexed = self._index[video]
        return [self._read(indexed.shard, self._frame_span(indexed, frame)) for frame in frames]

    def read_frames(self, video: int, frames: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 [N, H, W, 3] RGB of the frames at their own size, in the order asked for. Raises DataError."""
        entry = self.videos[video]
        pictures = np.empty((len(frames), entry.height, entry.width, 3), dtype=np.uint8)
        for place, (frame, content) in enumerate(zip(frames, self.read_jpegs(video, frames), strict=True)):
            picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _DECODING)
            if picture is None or picture.shape != pictures.shape[1:]:
                found = "cannot be decoded" if picture is None else f"decodes to {picture.shape[0]}x{picture.shape[1]}"
                raise DataError(
                    f"{self.folder / self._index[video].shard}: video {entry.video} frame {entry.frame_names[frame]} "
                    f"{found}; run `glus prepare` again",
                    video=entry.video,
                    frame=entry.frame_names[frame],
                )
            pictures[place] = picture
        return pictures

    def read_masks(self, video: int, object_ids: Sequence[str], frames: Sequence[int]) -> NDArray[np.bool_]:
        """bool [O, N, H, W]: masks of the objects at the frames' size. Raises DataError on an unknown object."""
        entry = self.videos[video]
        masks = np.zeros((len(object_ids), len(frames), entry.height, entry.width), dtype=np.bool_)
        for row, object_id in enumerate(object_ids):
            codes = self._codes(video, object_id)
            for column, frame in enumerate(frames):
                masks[row, column] = decode(codes[frame], entry.height, entry.width)
        return masks

    def read_target(self, video: int, expression: Expression, frames: Sequence[int]) -> NDArray[np.bool_]:
        """bool [N, H, W]: union of the masks of the expression's objects; all False where it has none."""
        entry = self.videos[video]
        codes = [self._codes(video, object_id) for object_id in expression.object_ids]
        masks = np.zeros((len(frames), entry.height, entry.width), dtype=np.bool_)
        for place, frame in enumerate(frames):
            masks[place] = union((code[frame] for code in codes), entry.height, entry.width)
        return masks

    def _codes(self, video: int, object_id: str) -> list[Rle | None]:
        # Expressions of one video are read one after the other, so the last video's masks are kept.
        last = self._last_masks
        if last is None or last[0] != video:
            indexed = self._index[video]
            last = (video, json.loads(self._read(indexed.shard, indexed.masks)))
            self._last_masks = last
        if object_id not in last[1]:
            entry = self.videos[video]
            raise DataError(
                f"{self.dataset}/{self.split}: video {entry.video} has no object {object_id}; "
                f"it has {', '.join(entry.object_ids) or 'none'}",
                video=entry.video,
            )
        return last[1][object_id]

    def _frame_span(self, indexed: IndexedVideo, frame: int) -> Span:
        if not 0 <= frame < len(indexed.frames):
            raise IndexError(f"video {indexed.entry.video} has frames 0 to {len(indexed.frames) - 1}, not {frame}")
        return indexed.frames[frame]

    def _read(self, shard: str, span: Span) -> bytes:
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            descriptor = os.open(self.folder / shard, os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors[shard] = descriptor
        offset, size = span
        content = os.pread(descriptor, size, offset)
        if len(content) != size:
            raise DataError(f"{self.folder / shard}: ends before byte {offset + size}; run `glus prepare` again")
        return content

    def close(self) -> None:
        """Close the shards' files; reading opens them again."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __enter__(self) -> "ShardedSplit":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_descriptors", None):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": {}, "_last_masks": None}


def open_splits(root: Path, names: Sequence[str] | None = None) -> list[ShardedSplit]:
    """Open the splits "dataset/split" below `root` in the order named; all of them, by name, where none are named.

    Raises DataError where a name is not there (with the nearest that is) or a split cannot be opened.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: this folder of shards does not exist; run `glus prepare` first")
    known = sorted(f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if path.is_dir())
    if not known:
        raise DataError(f"{root}: holds no shards; run `glus prepare` first")
    for name in names or []:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise DataError(f"{root}: no split {name} here; did you mean {near}? Known: {', '.join(known)}")
    return [ShardedSplit.open(root / name) for name in (names if names is not None else known)]


def _read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, or a DataError that says in which state the folder is."""
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder of shards does not exist; run `glus prepare` first")
    path = folder / MANIFEST_NAME
    if not path.is_file():
        if any(folder.iterdir()):
            raise DataError(f"{folder}: shards without a manifest, so not finished; run `glus prepare` again")
        raise DataError(f"{folder}: an empty folder, no shards; run `glus prepare` first")
    try:
        content = json.loads(_read_whole(path))
    except ValueError as error:
        raise DataError(f"{path}: a damaged manifest ({error}); run `glus prepare` again") from error
    return manifest_from_json(content, path)


def _read_whole(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run `glus prepare` again") from error
