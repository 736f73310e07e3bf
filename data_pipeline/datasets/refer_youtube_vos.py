"""Refer-YouTube-VOS (Seo et al. 2020): YouTube-VOS with expressions, masks in indexed PNGs, those of "valid" hidden."""

import logging
from pathlib import Path
from typing import Any

from glus.common.files import is_there
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.frame_names import VideoPlaces
from glus.data_pipeline.raw.mask_sources import IndexedPngs

SPLITS = ("train", "valid")

_log = logging.getLogger(__name__)


def annotation_file(root: Path, split: str) -> Path:
    return root / "Refer-YouTube-VOS" / "meta_expressions" / split / "meta_expressions.json"


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    annotation = annotation_file(root, split)
    folder = root / "Refer-YouTube-VOS" / split
    entries = read_entries(annotation)
    hidden = split == "valid"
    return AnnotatedSplit(
        dataset="refer_youtube_vos",
        split=split,
        annotation=annotation,
        entries=_valid_only(root, entries, folder / "JPEGImages") if hidden else entries,
        ids_key=None if hidden else "obj_id",
        images=folder / "JPEGImages",
        masks=None if hidden else IndexedPngs(folder / "Annotations"),
        files=(annotation,),
    )


def _valid_only(root: Path, entries: dict[str, Any], images: Path) -> dict[str, Any]:
    """The released valid file lists the test videos too (507 instead of 202).

    They are known by the test file where it is there, else by having no frames under valid.
    """
    test = annotation_file(root, "test")
    if is_there(test):
        others = set(read_entries(test))
        return {video: entry for video, entry in entries.items() if video not in others}
    if not images.is_dir():
        return entries
    places = VideoPlaces(images)  # what cannot be opened (a dangling link) is there too: reading it reports why
    kept = {video: entry for video, entry in entries.items() if places.of(video)}
    if len(kept) < len(entries):
        count = len(entries) - len(kept)
        _log.warning(
            "%s: %d of %d listed videos have no frames there: taken for test videos", images, count, len(entries)
        )
    return kept
