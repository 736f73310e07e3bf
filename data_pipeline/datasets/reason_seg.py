"""ReasonSeg (Lai et al. 2024, LISA): questions that need reasoning; polygons and texts in a JSON file an image.

reason_seg/ReasonSeg/{train,val,test}/X.{jpg,json}. explanatory/train.json (answers with reasons) is not read.
Source: dvlab-research/LISA, utils/data_processing.py.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from glus.common.errors import DataError, InputError
from glus.common.files import read_regular
from glus.common.json_file import as_object, parse_json
from glus.data_pipeline.images.image_split import ImageAnnotation, ImageSplit, listed
from glus.data_pipeline.images.polygons import Points, painted, points_of
from glus.data_pipeline.raw.annotation_file import REMEDY
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, NamedFiles
from glus.data_pipeline.raw.masks import VOID, encode
from glus.data_pipeline.raw.records import Expression

SPLITS = ("train", "val", "test")
#: Id of the one object of an image.
TARGET = "1"
#: Bytes of one image's JSON at most.
LARGEST = 64 * 2**20


def folder_of(root: Path, split: str) -> Path:
    return root / "reason_seg" / "ReasonSeg" / split


def read(root: Path, split: str) -> ImageSplit:
    """Raises DataError."""
    folder = folder_of(root, split)
    source = ReasonSegFolder(listed(folder, "images", JPEG_ENDINGS), NamedFiles(folder, (".json",)))
    return ImageSplit("reason_seg", split, folder, source, tuple(p for p in source.described() if p.is_file()))


class ReasonSegFolder:
    """Pictures and descriptions of one folder; what has one of the two only goes to the quarantine."""

    def __init__(self, images: NamedFiles, texts: NamedFiles) -> None:
        self._images, self._texts = images, texts

    def described(self) -> list[Path]:
        """The JSON files."""
        return [path for name in sorted(self._texts.files) for path in self._texts.files[name]]

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        names = sorted({*self._images.files, *self._texts.files})
        return {name: self._images.files.get(name, [self._images.folder / f"{name}.jpg"])[0] for name in names}

    def pictures(self) -> Mapping[str, Path]:
        return self._pictures

    def annotation(self, name: str, height: int, width: int) -> ImageAnnotation:
        path = self._texts.path(name)
        content = read_description(path)
        shapes, texts, sentence = (content.get(key) for key in ("shapes", "text", "is_sentence"))
        if not isinstance(shapes, list) or not isinstance(texts, list) or sentence not in (True, False):
            raise DataError(f'{path}: needs "shapes", "text" (lists) and "is_sentence"; {REMEDY}', file=str(path))
        labels = painted([_shape(each, height, width, path) for each in shapes], height, width)
        target, void = labels == 1, labels == VOID
        if any(not isinstance(text, str) for text in texts):
            raise DataError(f'{path}: its "text" must be a list of texts; {REMEDY}', file=str(path))
        kind = "sentence" if sentence else "phrase"
        expressions = tuple(Expression(str(number), text, (TARGET,), kind) for number, text in enumerate(texts))
        return ImageAnnotation(
            {TARGET: encode(target) if target.any() else None}, expressions, encode(void) if void.any() else None
        )

    def content(self, name: str) -> Any:
        return "reason_seg"

    def paths(self, name: str) -> list[Path]:
        return [self._texts.path(name)]


def read_description(path: Path) -> dict[str, Any]:
    """The object in a JSON file in UTF-8 or, where it is no UTF-8, in cp1252 as some released ones are.

    Raises DataError.
    """
    try:
        content = read_regular(path, "annotation file", LARGEST)
    except InputError as error:
        raise DataError(str(error), file=str(path)) from error
    text: str | bytes = content
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError as error:
            reason = f"byte {error.start} is 0x{content[error.start]:02x}"
            raise DataError(f"{path}: neither UTF-8 nor cp1252 ({reason}); {REMEDY}", file=str(path)) from error
    found = parse_json(text, str(path), remedy=REMEDY, raises=DataError, file=str(path), checked_texts=False)
    return as_object(found, str(path), DataError, REMEDY)


def _shape(content: Any, height: int, width: int, path: Path) -> tuple[str, Points]:
    if not isinstance(content, dict) or not isinstance(content.get("label"), str):
        raise DataError(f'{path}: a shape has no "label"; {REMEDY}', file=str(path))
    label = content["label"]
    if label.lower() == "flag":  # counts for nothing, whatever its points
        return label, points_of([0, 0, 1, 0, 0, 1], height, width, str(path))
    return label, points_of(content.get("points"), height, width, f"{path}: shape {label[:40]!r}")
