"""refCOCO, refCOCO+, refCOCOg (Yu et al., Mao et al. 2016), refCLEF and gRefCOCO: expressions for objects in images.

refer_seg/NAME/{instances.json, refs(unc).p} (refCOCOg: refs(umd).p; gRefCOCO: grefs(unc).json) and
refer_seg/images/{mscoco/images/train2014, saiapr_tc-12}. Source: lichengunc/refer, refer.py, as dvlab-research/LISA,
utils/refer.py, reads it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.common.json_file import read_json
from glus.data_pipeline.images.coco_file import CocoFile, pictures_by_name, read_coco
from glus.data_pipeline.images.image_split import ImageAnnotation, ImageSplit
from glus.data_pipeline.images.plain_pickle import LARGEST, read_plain_pickle
from glus.data_pipeline.raw.annotation_file import REMEDY
from glus.data_pipeline.raw.records import Expression

#: ReVOS's and gRefCOCO's mark of an expression that names nothing.
WITHOUT_TARGET = 2
_COCO_IMAGES = "mscoco/images/train2014"


@dataclass(frozen=True)
class ReferFamily:
    """Where one of these datasets lies below refer_seg/."""

    folder: str
    refs: str
    splits: tuple[str, ...]
    images: str = _COCO_IMAGES


FAMILY: Mapping[str, ReferFamily] = {
    "refcoco": ReferFamily("refcoco", "refs(unc).p", ("train", "val", "testA", "testB")),
    "refcoco_plus": ReferFamily("refcoco+", "refs(unc).p", ("train", "val", "testA", "testB")),
    "refcocog": ReferFamily("refcocog", "refs(umd).p", ("train", "val", "test")),
    "refclef": ReferFamily("refclef", "refs(unc).p", ("train", "val", "testA", "testB", "testC"), "saiapr_tc-12"),
    "grefcoco": ReferFamily("grefcoco", "grefs(unc).json", ("train", "val", "testA", "testB")),
}


@dataclass(frozen=True)
class Ref:
    """What is said of some objects of an image: their annotation ids (none: no target), (id, text) of sentences."""

    image: int
    annotations: tuple[int, ...]
    sentences: tuple[tuple[str, str], ...]


class ReferSource:
    """Images of one split that its refs name, in the order of instances.json."""

    def __init__(self, coco: CocoFile, refs: Mapping[int, list[Ref]], images: Path, where: Path) -> None:
        self._coco, self._refs, self._where = coco, refs, where
        shown = {number: image for number, image in coco.images.items() if number in refs}
        if len(shown) < len(refs):
            lost = next(number for number in refs if number not in coco.images)
            raise DataError(
                f"{where}: names image {lost}, which {coco.path} does not list; take both files from one release",
                file=str(where),
            )
        self._pictures, self._ids = pictures_by_name(shown, images, coco.path)

    def pictures(self) -> Mapping[str, Path]:
        return self._pictures

    def annotation(self, name: str, height: int, width: int) -> ImageAnnotation:
        expressions, objects = [], {}
        for ref in self._refs[self._ids[name]]:
            for number in ref.annotations:
                if str(number) not in objects:
                    found = self._coco.annotations.get(number)
                    if found is None or found.image != ref.image:
                        raise DataError(
                            f"{self._where}: image {name} has no annotation {number} in {self._coco.path}; take both "
                            "files from one release",
                            file=str(self._where),
                        )
                    objects[str(number)] = self._coco.code(found)
            ids = tuple(str(number) for number in ref.annotations)
            without = None if ids else WITHOUT_TARGET
            expressions += [Expression(number, text, ids, type_id=without) for number, text in ref.sentences]
        return ImageAnnotation(objects, tuple(expressions))

    def content(self, name: str) -> Any:
        refs = self._refs[self._ids[name]]
        numbers = sorted({number for ref in refs for number in ref.annotations})
        found = [self._coco.annotations.get(number) for number in numbers]
        image = self._coco.images[self._ids[name]]
        said = [[ref.annotations, ref.sentences] for ref in refs]
        return [image.height, image.width, said, [each and each.segmentation for each in found]]

    def paths(self, name: str) -> list[Path]:
        return []


def refs_file(name: str, root: Path, split: str) -> Path:
    return root / "refer_seg" / FAMILY[name].folder / FAMILY[name].refs


def read_refer(name: str, root: Path, split: str) -> ImageSplit:
    """Raises DataError."""
    family, path = FAMILY[name], refs_file(name, root, split)
    raw = (
        read_json(path, "annotation file", remedy=REMEDY, largest=LARGEST, raises=DataError, checked_texts=False)
        if path.suffix == ".json"
        else read_plain_pickle(path)
    )
    refs = _refs_of(raw, split, path)
    coco = read_coco(path.with_name("instances.json"))
    source = ReferSource(coco, refs, root / "refer_seg" / "images" / family.images, path)
    return ImageSplit(name, split, path, source, (path, coco.path))


def _refs_of(content: Any, split: str, path: Path) -> dict[int, list[Ref]]:
    """The refs of a split by their image."""
    found: dict[int, list[Ref]] = {}
    try:
        if not isinstance(content, list):
            raise TypeError(f"a {type(content).__name__} instead of a list of refs")
        for each in content:
            if each["split"] == split:
                ref = _ref(each)
                found.setdefault(ref.image, []).append(ref)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:80] or repr(error)
        raise DataError(f"{path}: not a file of refs ({reason}); {REMEDY}", file=str(path)) from error
    return found


def _ref(content: Any) -> Ref:
    annotations = content["ann_id"]
    numbers = annotations if isinstance(annotations, list) else [annotations]
    if any(type(number) is not int for number in (content["image_id"], *numbers)):
        raise TypeError("image_id and ann_id must be integers")
    sentences = [(each["sent_id"], each["sent"]) for each in content["sentences"]]
    if any(type(number) is not int or not isinstance(text, str) for number, text in sentences):
        raise TypeError(f"a sentence of image {content['image_id']} has no sent_id, or its sent is no text")
    # gRefCOCO writes -1 where an expression names nothing.
    named = tuple(dict.fromkeys(number for number in numbers if number != -1))
    return Ref(content["image_id"], named, tuple((str(number), text) for number, text in sentences))


def annotation_file_of(name: str) -> Callable[[Path, str], Path]:
    return partial(refs_file, name)


def reader_of(name: str) -> Callable[[Path, str], ImageSplit]:
    return partial(read_refer, name)
