"""PACO-LVIS (Ramanathan et al. 2023) and PASCAL-Part (Chen et al. 2014): objects and their parts, in COCO's form.

vlpart/paco/annotations/paco_lvis_v1_train.json (images in coco/) and vlpart/pascal_part/train.json with
VOCdevkit/VOC2010/JPEGImages. An annotation is one object; a part has two expressions, "dog head" and "the head of the
dog", of which the reference draws one (dvlab-research/LISA, utils/sem_seg_dataset.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.data_pipeline.images.coco_file import CocoAnnotation, CocoFile, pictures_by_name, read_coco
from glus.data_pipeline.images.image_split import ImageAnnotation, ImageSplit
from glus.data_pipeline.raw.annotation_file import REMEDY
from glus.data_pipeline.raw.records import Expression

SPLITS = ("train",)


@dataclass(frozen=True)
class PartSet:
    """Where a dataset lies, and what ends the part of a name that is said: PACO writes "cup_(drink)"."""

    annotations: str
    images: str
    ends: str


SETS: Mapping[str, PartSet] = {
    "paco_lvis": PartSet("vlpart/paco/annotations/paco_lvis_v1_train.json", "coco", "_("),
    "pascal_part": PartSet("vlpart/pascal_part/train.json", "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages", ""),
}


class PartImages:
    """Images that have an annotation, in the file's order."""

    def __init__(self, kind: PartSet, coco: CocoFile, images: Path) -> None:
        self._coco = coco
        self._texts = {number: wordings(name, kind.ends) for number, name in coco.categories.items()}
        self._of_image: dict[int, list[CocoAnnotation]] = {}
        for each in coco.annotations.values():
            self._of_image.setdefault(each.image, []).append(each)
        shown = {number: image for number, image in coco.images.items() if number in self._of_image}
        self._pictures, self._ids = pictures_by_name(shown, images, coco.path)

    def pictures(self) -> Mapping[str, Path]:
        return self._pictures

    def annotation(self, name: str, height: int, width: int) -> ImageAnnotation:
        expressions, objects = [], {}
        for each in self._of_image[self._ids[name]]:
            texts = () if each.category is None else self._texts.get(each.category, ())
            if not texts:
                raise DataError(
                    f"{self._coco.path}: annotation {each.id} has the category {each.category!r}, which is not listed "
                    f"or has no name; {REMEDY}",
                    file=str(self._coco.path),
                )
            objects[str(each.id)] = self._coco.code(each)
            for text, ending in zip(texts, ("", "-of"), strict=False):
                expressions.append(Expression(f"{each.id}{ending}", text, (str(each.id),)))
        return ImageAnnotation(objects, tuple(expressions))

    def content(self, name: str) -> Any:
        image = self._coco.images[self._ids[name]]
        found = self._of_image[self._ids[name]]
        said = [[each.id, self._texts.get(each.category or 0), each.segmentation] for each in found]
        return [image.height, image.width, said]

    def paths(self, name: str) -> list[Path]:
        return []


def wordings(name: str, ends: str) -> tuple[str, ...]:
    """Texts of a category: of "dog:head" "dog head" and "the head of the dog", of "dog" itself alone."""
    words = [word.split(ends)[0] if ends else word for word in name.strip().split(":")]
    if not all(word.strip() for word in words) or len(words) > 2:
        return ()
    return (f"{words[0]} {words[1]}", f"the {words[1]} of the {words[0]}") if len(words) == 2 else (words[0],)


def parts_file(name: str, root: Path, split: str) -> Path:
    return root / SETS[name].annotations


def read_parts(name: str, root: Path, split: str) -> ImageSplit:
    """Raises DataError."""
    path = parts_file(name, root, split)
    coco = read_coco(path)
    return ImageSplit(name, split, path, PartImages(SETS[name], coco, root / SETS[name].images), (path,))


def annotation_file_of(name: str) -> Callable[[Path, str], Path]:
    return partial(parts_file, name)


def reader_of(name: str) -> Callable[[Path, str], ImageSplit]:
    return partial(read_parts, name)
