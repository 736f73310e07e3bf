"""Where datasets keep their masks: run-length codes in JSON, indexed PNGs, one folder of PNGs an object."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from glus.common.errors import DataError
from glus.common.names import check_name
from glus.data_pipeline.raw.frame_names import PNG_ENDINGS, NamedFiles
from glus.data_pipeline.raw.masks import VOID, checked_all, encode, encode_labels, encode_void, read_labels
from glus.data_pipeline.raw.records import Rle

Objects = dict[str, list[Rle | None]]


@dataclass(frozen=True)
class Masks:
    """Masks of a video: object id -> one code a frame, None where it is not seen; `void` as in VideoRecord."""

    objects: Objects
    void: list[Rle | None] | None = None


class MaskSource(Protocol):
    """Masks of a split's videos."""

    def read(self, video: str, frame_names: Sequence[str], size: tuple[int, int], object_ids: Sequence[str]) -> Masks:
        """Masks of one video; `object_ids` are those that expressions name.

        `size` is the frames' (height, width). Raises DataError on a missing or broken mask.
        """
        ...

    def open(self) -> None:
        """Read what all videos share. Raises DataError where it is missing or broken: then no video can be read."""
        ...

    def paths(self, video: str, object_ids: Sequence[str]) -> list[Path]:
        """Files or folders that `objects` reads, there or not."""
        ...


class RleTable:
    """mask_dict.json: annotation id -> a code or null a frame. Opened when the first mask is asked for."""

    def __init__(self, path: Path, load: Callable[[], Mapping[str, Any]]) -> None:
        self.path = path
        self._load = load

    @cached_property
    def _codes(self) -> Mapping[str, Any]:
        return self._load()

    def read(self, video: str, frame_names: Sequence[str], size: tuple[int, int], object_ids: Sequence[str]) -> Masks:
        return Masks({object_id: self._object(video, frame_names, size, object_id) for object_id in object_ids})

    def open(self) -> None:
        len(self._codes)

    def _object(
        self, video: str, frame_names: Sequence[str], size: tuple[int, int], object_id: str
    ) -> list[Rle | None]:
        where = f"{self.path}: object {object_id} of video {video}"
        codes = self._codes.get(object_id)
        if codes is None:
            raise DataError(f"{where} has no masks; take this file again", file=str(self.path), video=video)
        if not isinstance(codes, list) or len(codes) != len(frame_names):
            found = f"{len(codes)}" if isinstance(codes, list) else "no list of"
            raise DataError(
                f"{where} has {found} masks for {len(frame_names)} frames; annotation and masks do not belong together",
                file=str(self.path),
                video=video,
            )
        return checked_all(codes, *size, (f"{where}, frame {name}" for name in frame_names))

    def paths(self, video: str, object_ids: Sequence[str]) -> list[Path]:
        return [self.path]


class IndexedPngs:
    """FOLDER/VIDEO/FRAME.png whose values are object ids; 0 is nothing. Reads all objects.

    In 8 bits 255 is void (DAVIS): no annotation may name an object 255. In 16 bits it is an object as any other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, video: str, frame_names: Sequence[str], size: tuple[int, int], object_ids: Sequence[str]) -> Masks:
        files = NamedFiles(self.folder / video, PNG_ENDINGS)
        maps = [read_labels(files.path(name), *size) for name in frame_names]
        objects = {str(label): codes for label, codes in encode_labels(maps).items()}
        void = encode_void(maps)
        if void is not None and str(VOID) in {*object_ids, *objects}:
            frame = next(name for name, code in zip(frame_names, void, strict=True) if code is not None)
            place = files.path(frame)
            raise DataError(
                f"{place}: {VOID} is void in a mask of 8 bits, but the video has an object {VOID} too; store its masks "
                "with 16 bits, or give the object another id",
                file=str(place),
                video=video,
                frame=frame,
            )
        return Masks(objects, void)

    def open(self) -> None:
        _require_folder(self.folder)

    def paths(self, video: str, object_ids: Sequence[str]) -> list[Path]:
        return [self.folder / video]


class ObjectPngs:
    """FOLDER/SOURCE_VIDEO_OBJECT/FRAME.png, where any value but 0 is the object (ReasonVOS)."""

    def __init__(self, folder: Path, sources: Mapping[str, Any], objects: Mapping[str, Collection[str]]) -> None:
        """`sources` maps a video to the name of the dataset that it came from, `objects` to the ids that it names."""
        self.folder = folder
        self.sources = sources
        self._named = objects

    @cached_property
    def _owners(self) -> Counter[str]:
        """How many (video, object) pairs a folder would hold: `a`, `b_1` and `a_b`, `1` have one name."""
        return Counter(self._name(video, each) for video, ids in self._named.items() for each in ids)

    def _name(self, video: str, object_id: str) -> str:
        return f"{self.sources.get(video, '')}_{video}_{object_id}"

    def read(self, video: str, frame_names: Sequence[str], size: tuple[int, int], object_ids: Sequence[str]) -> Masks:
        objects: Objects = {}
        for object_id, folder in zip(object_ids, self.paths(video, object_ids), strict=True):
            if not folder.is_dir():
                raise DataError(
                    f"{folder}: this folder of masks of object {object_id} is missing", file=str(folder), video=video
                )
            files = NamedFiles(folder, PNG_ENDINGS)
            masks = [read_labels(files.path(name), *size) != 0 for name in frame_names]
            objects[object_id] = [encode(mask) if mask.any() else None for mask in masks]
        return Masks(objects)

    def open(self) -> None:
        _require_folder(self.folder)

    def paths(self, video: str, object_ids: Sequence[str]) -> list[Path]:
        source = self.sources.get(video, "")
        if not isinstance(source, str):
            raise DataError(f'{self.folder}: the "source" of video {video} is no name but {source!r}', video=video)
        if source:
            check_name(source, "source", f"{self.folder}: video {video}")
        names = [self._name(video, object_id) for object_id in object_ids]
        shared = [name for name in names if self._owners[name] > 1]
        if shared:
            raise DataError(
                f"{self.folder / shared[0]}: this folder would belong to several objects or videos; rename one",
                file=str(self.folder / shared[0]),
                video=video,
            )
        return [self.folder / name for name in names]


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: this folder of masks is missing; put the dataset there as released", file=str(folder)
        )
