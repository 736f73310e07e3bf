"""The demo's hard cases (`glus demo-data`): videos of look-alike objects, in MeViS's layout below ROOT/demo_twins."""

from pathlib import Path

from glus.data_pipeline.datasets import mevis
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit

SPLITS = ("valid",)


def annotation_file(root: Path, split: str) -> Path:
    return mevis.annotation_in(root / "demo_twins", split)


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    return mevis.read_layout("demo_twins", split, annotation_file(root, split), hidden=False)
