"""ReVOS (Yan et al. 2024): referring, reasoning and target-less expressions (type_id), masks in one mask_dict.json."""

from pathlib import Path

from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.annotation_file import open_members
from glus.data_pipeline.raw.mask_sources import RleTable

SPLITS = ("train", "valid")


def annotation_file(root: Path, split: str) -> Path:
    return root / "ReVOS" / f"meta_expressions_{split}_.json"


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    annotation = annotation_file(root, split)
    masks = annotation.with_name("mask_dict.json")
    return AnnotatedSplit(
        dataset="revos",
        split=split,
        annotation=annotation,
        entries=read_entries(annotation),
        ids_key="anno_id",
        images=annotation.with_name("JPEGImages"),
        masks=RleTable(masks, lambda: open_members(masks)),
        files=(annotation, masks),
    )
