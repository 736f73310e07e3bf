"""Names of datasets -> their readers."""

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from glus.common.errors import DataError
from glus.common.names import case_twins, shown
from glus.data_pipeline.datasets import (
    demo_twins,
    lv_vis,
    mevis,
    object_parts,
    reason_seg,
    reason_vos,
    ref_davis17,
    refer,
    refer_youtube_vos,
    revos,
    semantic_sets,
    youtube_vos,
)
from glus.data_pipeline.raw.records import RawSplit

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """How a dataset is read: its splits, where a split's expressions are (a file or folder), and the reader.

    `images`: its videos are single images, of which a shard holds many.
    """

    splits: tuple[str, ...]
    annotation_file: Callable[[Path, str], Path]
    read: Callable[[Path, str], RawSplit]
    images: bool = False


DATASETS: Mapping[str, Reader] = MappingProxyType(
    {
        "mevis": Reader(mevis.SPLITS, mevis.annotation_file, mevis.read),
        "refer_youtube_vos": Reader(
            refer_youtube_vos.SPLITS, refer_youtube_vos.annotation_file, refer_youtube_vos.read
        ),
        "ref_davis17": Reader(ref_davis17.SPLITS, ref_davis17.annotation_file, ref_davis17.read),
        "revos": Reader(revos.SPLITS, revos.annotation_file, revos.read),
        "lv_vis": Reader(lv_vis.SPLITS, lv_vis.annotation_file, lv_vis.read),
        "reason_vos": Reader(reason_vos.SPLITS, reason_vos.annotation_file, reason_vos.read),
        "demo_twins": Reader(demo_twins.SPLITS, demo_twins.annotation_file, demo_twins.read),
        "youtube_vos": Reader(youtube_vos.SPLITS, youtube_vos.annotation_file, youtube_vos.read),
        "reason_seg": Reader(reason_seg.SPLITS, reason_seg.folder_of, reason_seg.read, images=True),
        **{
            name: Reader(family.splits, refer.annotation_file_of(name), refer.reader_of(name), images=True)
            for name, family in refer.FAMILY.items()
        },
        **{
            name: Reader(room.SPLITS, room.annotation_file_of(name), room.reader_of(name), images=True)
            for room in (semantic_sets, object_parts)
            for name in room.SETS
        },
    }
)


def read_dataset(name: str, root: Path, split: str) -> RawSplit:
    """The split of a dataset below `root` (docs/data_format.md draws the folders).

    Raises DataError on an unknown name or split (with the nearest known), or where files are missing or broken.
    """
    check_split(name, split)
    found = _reader(name).read(Path(root), split)
    twins = case_twins(found.videos())
    if twins:
        _log.warning(
            "%s/%s: %d videos have names that differ from another's only in case, such as %s and %s; on a file system "
            "that is blind to case their predictions would be one",
            *(name, split, len(twins), *map(shown, twins[0])),
        )
    return found


def check_split(name: str, split: str) -> None:
    """Raise DataError on an unknown dataset or split, with the nearest known."""
    known = _reader(name).splits
    if split not in known:
        raise DataError(f"{name} has no split {split!r}; {_nearest(split, known)}")


def splits_there(name: str, root: Path) -> list[str]:
    """Splits of a dataset whose file of expressions is below `root`. Raises DataError where there is none."""
    reader = _reader(name)
    found = [split for split in reader.splits if reader.annotation_file(Path(root), split).exists()]
    if not found:
        wanted = reader.annotation_file(Path(root), reader.splits[0])
        raise DataError(f"{name}: none of its splits is below {root}; {wanted} should be there, for one")
    return found


def _reader(name: str) -> Reader:
    if name not in DATASETS:
        raise DataError(f"no dataset {name!r}; {_nearest(name, tuple(DATASETS))}")
    return DATASETS[name]


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"did you mean {near!r}? Known: {', '.join(known)}"


def holds_images(name: str) -> bool:
    """Whether a dataset's videos are single images. Raises DataError on an unknown dataset."""
    return _reader(name).images
