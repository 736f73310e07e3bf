"""ReasonVOS (Bai et al. 2024, VideoLISA): evaluation only; expressions in lists, a folder of PNGs an object."""

from pathlib import Path
from typing import Any

from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.mask_sources import ObjectPngs

SPLITS = ("valid",)


def annotation_file(root: Path, split: str) -> Path:
    return root / "ReasonVOS" / "meta_expressions.json"


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    annotation = annotation_file(root, split)
    entries = read_entries(annotation)
    sources = {video: entry.get("source", "") for video, entry in entries.items() if isinstance(entry, dict)}
    return AnnotatedSplit(
        dataset="reason_vos",
        split=split,
        annotation=annotation,
        entries=entries,
        ids_key="obj_id",
        images=annotation.with_name("JPEGImages"),
        masks=ObjectPngs(
            annotation.with_name("Annotations"), sources, {video: _objects(entry) for video, entry in entries.items()}
        ),
        files=(annotation,),
    )


def _objects(entry: Any) -> set[str]:
    """Ids that a video's expressions name; what has another form is refused when the video is read."""
    expressions = entry.get("expressions") if isinstance(entry, dict) else None
    named = [each.get("obj_id") for each in expressions or () if isinstance(each, dict)]
    return {str(each) for ids in named for each in (ids if isinstance(ids, list) else [ids])}
