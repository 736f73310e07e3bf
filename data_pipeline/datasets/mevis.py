"""MeViS (Ding et al. 2023): motion expressions, several objects an expression, masks in mask_dict.json."""

from pathlib import Path

from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.annotation_file import open_members
from glus.data_pipeline.raw.mask_sources import RleTable

SPLITS = ("train", "valid_u", "valid")


def annotation_file(root: Path, split: str) -> Path:
    return annotation_in(root / "mevis", split)


def annotation_in(folder: Path, split: str) -> Path:
    """The expressions of a split of a dataset in MeViS's layout, which is `folder`."""
    return folder / split / "meta_expressions.json"


def read(root: Path, split: str) -> AnnotatedSplit:
    """The targets of "valid" are on the benchmark's server. Raises DataError."""
    return read_layout("mevis", split, annotation_file(root, split), hidden=split == "valid")


def read_layout(dataset: str, split: str, annotation: Path, hidden: bool) -> AnnotatedSplit:
    """A split in MeViS's layout; `hidden`: without targets. Raises DataError."""
    masks = annotation.with_name("mask_dict.json")
    return AnnotatedSplit(
        dataset=dataset,
        split=split,
        annotation=annotation,
        entries=read_entries(annotation),
        ids_key=None if hidden else "anno_id",
        images=annotation.with_name("JPEGImages"),
        masks=None if hidden else RleTable(masks, lambda: open_members(masks)),
        files=(annotation,) if hidden else (annotation, masks),
    )
