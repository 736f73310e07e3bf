"""Ref-DAVIS17 (Khoreva et al. 2018): DAVIS 2017 with expressions, masks in indexed PNGs."""

from pathlib import Path

from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.mask_sources import IndexedPngs

SPLITS = ("train", "valid")


def annotation_file(root: Path, split: str) -> Path:
    return root / "DAVIS17" / "meta_expressions" / split / "meta_expressions.json"


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    annotation = annotation_file(root, split)
    folder = root / "DAVIS17" / split
    return AnnotatedSplit(
        dataset="ref_davis17",
        split=split,
        annotation=annotation,
        entries=read_entries(annotation),
        ids_key="obj_id",
        images=folder / "JPEGImages",
        masks=IndexedPngs(folder / "Annotations"),
        files=(annotation,),
    )
