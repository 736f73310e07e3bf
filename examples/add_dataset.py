"""Add a dataset of your own: a reader that turns its annotations into the entries that all datasets share.

This one reads ROOT/shapes/SPLIT: expressions.csv (columns video, object, text), JPEGImages/VIDEO/FRAME.jpg and
Annotations/VIDEO/FRAME.png, indexed PNGs whose values are object ids.

python examples/add_dataset.py ROOT SPLIT    reads every video and prints what it holds

To prepare and train on it, move the file to data_pipeline/datasets/, add a line to data_pipeline/datasets/table.py
and a test (CONTRIBUTING.md).
"""

import csv
import sys
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit
from glus.data_pipeline.raw.mask_sources import IndexedPngs

SPLITS = ("train", "valid")


def annotation_file(root: Path, split: str) -> Path:
    return root / "shapes" / split / "expressions.csv"


def read(root: Path, split: str) -> AnnotatedSplit:
    """Read the names of the split's videos and their expressions; frames and masks are read per video, by workers.

    Raises DataError where the annotation file is missing or a row is incomplete.
    """
    annotation = annotation_file(root, split)
    if not annotation.is_file():
        raise DataError(f"{annotation}: this annotation file is missing", file=str(annotation))
    images = annotation.with_name("JPEGImages")
    entries: dict[str, Any] = {}
    with annotation.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if not all(row.get(column) for column in ("video", "object", "text")):
                raise DataError(f"{annotation}, line {number}: video, object and text are needed", file=str(annotation))
            frames = sorted(path.stem for path in (images / row["video"]).glob("*.jpg"))
            entry = entries.setdefault(row["video"], {"frames": frames, "expressions": {}})
            name = str(len(entry["expressions"]))
            entry["expressions"][name] = {"exp": row["text"], "obj_id": row["object"]}
    return AnnotatedSplit(
        dataset="shapes",
        split=split,
        annotation=annotation,
        entries=entries,
        ids_key="obj_id",
        images=images,
        masks=IndexedPngs(annotation.with_name("Annotations")),
        files=(annotation,),
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    found = read(Path(sys.argv[1]), sys.argv[2])
    for video in found.videos():
        record = found.record(video)
        print(
            f"{video}: {len(record.frames.names)} frames of {record.width}x{record.height}, objects {[*record.objects]}"
        )
        for expression in record.expressions:
            print(f"  {expression.text!r} -> object {', '.join(expression.object_ids)}")
