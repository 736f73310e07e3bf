"""YouTube-VOS 2019 (Xu et al. 2018), training videos: a category's name is the expression for all its objects.

YouTube-VOS/train/{JPEGImages,Annotations,meta.json}; the folder may be called YTVOS too, as VideoLISA's is. Source:
showlab/VideoLISA, utils/vos_dataset.py, whose target holds only those objects that the first frame drawn shows.
"""

from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.annotation_file import REMEDY
from glus.data_pipeline.raw.mask_sources import IndexedPngs

SPLITS = ("train",)
FOLDERS = ("YouTube-VOS", "YTVOS")


def annotation_file(root: Path, split: str) -> Path:
    """meta.json in the split's folder or above it, whichever is there; else where it should be."""
    places = [place for name in FOLDERS for place in (root / name / split, root / name)]
    found = [place / "meta.json" for place in places]
    return next((path for path in found if path.is_file()), found[0])


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    annotation = annotation_file(root, split)
    folder = annotation.parent if annotation.parent.name == split else annotation.parent / split
    entries = {video: _entry(annotation, video, entry) for video, entry in read_entries(annotation).items()}
    return AnnotatedSplit(
        dataset="youtube_vos",
        split=split,
        annotation=annotation,
        entries=entries,
        ids_key="obj_id",
        images=folder / "JPEGImages",
        masks=IndexedPngs(folder / "Annotations"),
        files=(annotation,),
    )


def _entry(path: Path, video: str, content: Any) -> dict[str, Any]:
    """A video's categories as expressions, in rising order of their names."""
    try:
        found: dict[str, list[str]] = {}
        for number, each in content["objects"].items():
            found.setdefault(each["category"], []).append(number)
        named = [{"exp": category, "obj_id": found[category]} for category in sorted(found)]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: video {video} is not in the form of YouTube-VOS ({error!r}); {REMEDY}", file=str(path)
        ) from error
    return {"expressions": {str(number): each for number, each in enumerate(named)}}
