"""Annotation files in COCO's form ("images", "annotations", "categories"), read as far as it is used here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.common.names import check_path
from glus.data_pipeline.images.polygons import segmentation_code
from glus.data_pipeline.raw.annotation_file import REMEDY, read_annotation
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, without_ending
from glus.data_pipeline.raw.records import Rle


@dataclass(frozen=True)
class CocoImage:
    """An image as listed: its file below the folder of images, and its size in pixels."""

    file_name: str
    height: int
    width: int

    @property
    def name(self) -> str:
        """The stem of its file: the name of its video."""
        return without_ending(self.file_name.rpartition("/")[2], JPEG_ENDINGS)


@dataclass(frozen=True)
class CocoAnnotation:
    """One annotation; its segmentation is looked at when its image is read."""

    id: int
    image: int
    category: int | None
    segmentation: Any


@dataclass(frozen=True)
class CocoFile:
    """Images and annotations by id, annotations in the file's order; `categories` by id."""

    path: Path
    images: Mapping[int, CocoImage]
    annotations: Mapping[int, CocoAnnotation]
    categories: Mapping[int, str]

    def code(self, annotation: CocoAnnotation) -> Rle | None:
        """The mask of an annotation at the size that the file says of its image. Raises DataError."""
        image = self.images[annotation.image]
        where = f"{self.path}: annotation {annotation.id} of image {image.name}"
        return segmentation_code(annotation.segmentation, image.height, image.width, where)


def read_coco(path: Path) -> CocoFile:
    """Raises DataError where the file is missing, broken, of another form or has an id twice, InputError for names."""
    content = read_annotation(path)
    try:
        images = {
            _integer(each["id"]): CocoImage(_file_name(each, path), _side(each["height"]), _side(each["width"]))
            for each in content["images"]
        }
        annotations = {
            _integer(each["id"]): CocoAnnotation(
                each["id"], _integer(each["image_id"]), each.get("category_id"), each["segmentation"]
            )
            for each in content["annotations"]
        }
        listed = content.get("categories", [])
        categories = {_integer(each["id"]): _text(each["name"]) for each in listed}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: not in COCO's form ({error!r}); {REMEDY}", file=str(path)) from error
    counts = (len(content["images"]), len(content["annotations"]), len(listed))
    if counts != (len(images), len(annotations), len(categories)):
        raise DataError(f"{path}: lists an id twice; {REMEDY}", file=str(path))
    lost = next((each.id for each in annotations.values() if each.image not in images), None)
    if lost is not None:
        raise DataError(f"{path}: annotation {lost} belongs to no listed image; {REMEDY}", file=str(path))
    return CocoFile(path, images, annotations, categories)


def pictures_by_name(
    images: Mapping[int, CocoImage], folder: Path, where: Path
) -> tuple[dict[str, Path], dict[str, int]]:
    """Name -> where the picture should be, and name -> image id. Raises DataError where two images have one name."""
    pictures: dict[str, Path] = {}
    ids: dict[str, int] = {}
    for number, image in images.items():
        if image.name in ids:
            raise DataError(f"{where}: two images are called {image.name}; {REMEDY}", file=str(where))
        pictures[image.name], ids[image.name] = folder / image.file_name, number
    return pictures, ids


def _file_name(image: dict[str, Any], path: Path) -> str:
    return check_path(_text(image["file_name"]), "frame", f"{path}: image {image['id']}")


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"an id is {value!r}")
    return value


def _side(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 65_535:
        raise ValueError(f"a height or width is {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is {value!r}")
    return value
