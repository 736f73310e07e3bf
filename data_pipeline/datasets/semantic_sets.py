"""ADE20K (Zhou et al. 2017) and COCO-Stuff (Caesar et al. 2018): a label map an image, a class's name its expression.

ade20k/{images,annotations}/training and coco/train2017 with cocostuff/train2017. Source: dvlab-research/LISA,
utils/sem_seg_dataset.py: ADE20K's label 0 is ignored and the others count from 1; of COCO-Stuff, names with "-" are
left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.data_pipeline.images.image_split import ImageAnnotation, ImageSplit, listed
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, PNG_ENDINGS, NamedFiles
from glus.data_pipeline.raw.masks import encode, labels_present, read_labels
from glus.data_pipeline.raw.records import Expression


def _listed(names: str) -> tuple[str, ...]:
    return tuple(names.split(", "))


#: Of labels 1 to 150; 0 is what belongs to none. Source: dvlab-research/LISA, utils/ade20k_classes.json.
ADE20K = _listed(
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
    "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
    "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee "
    "table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, "
    "boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, "
    "television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, "
    "buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, "
    "barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, "
    "pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, "
    "ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"
)
#: Of labels 0 to 181; 255 is what belongs to none. Source: labels.txt of nightrome/cocostuff without "unlabeled".
COCO_STUFF = _listed(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street "
    "sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, "
    "hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, "
    "kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, "
    "fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, "
    "chair, couch, potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, "
    "remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, "
    "bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, "
    "cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, "
    "floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, "
    "leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, "
    "plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, "
    "sea, shelf, sky, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, "
    "textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, "
    "wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood"
)


SPLITS = ("train",)


@dataclass(frozen=True)
class SemanticSet:
    """Folders of a dataset below the root, and its classes by stored label; labels in neither are damage."""

    images: str
    labels: str
    classes: Mapping[int, str]
    left_out: frozenset[int] = frozenset()
    all_images: bool = False
    """Whether every image of the folder belongs to the dataset; else those that have a label map."""


def _classes(names: tuple[str, ...], first: int) -> dict[int, str]:
    return {number: name for number, name in enumerate(names, start=first) if "-" not in name}


SETS: Mapping[str, SemanticSet] = {
    "ade20k": SemanticSet(
        "ade20k/images/training", "ade20k/annotations/training", _classes(ADE20K, 1), all_images=True
    ),
    "coco_stuff": SemanticSet(
        "coco/train2017",
        "cocostuff/train2017",
        _classes(COCO_STUFF, 0),
        frozenset(number for number, name in enumerate(COCO_STUFF) if "-" in name),
    ),
}


class LabelMaps:
    """Images that have a label map (COCO-Stuff), or all images of a folder (ADE20K), in the order of their names."""

    def __init__(self, kind: SemanticSet, images: Path, labels: NamedFiles, names: list[str]) -> None:
        self._kind, self._images, self._labels, self._names = kind, images, labels, names

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        files = NamedFiles(self._images, JPEG_ENDINGS).files
        return {name: files.get(name, [self._images / f"{name}.jpg"])[0] for name in self._names}

    def pictures(self) -> Mapping[str, Path]:
        return self._pictures

    def annotation(self, name: str, height: int, width: int) -> ImageAnnotation:
        path, classes = self._labels.path(name), self._kind.classes
        labels = read_labels(path, height, width)
        present = labels_present(labels)
        if 0 in classes and bool((labels == 0).any()):  # COCO-Stuff counts from 0
            present = [0, *present]
        unknown = [label for label in present if label not in classes and label not in self._kind.left_out]
        if unknown:
            raise DataError(
                f"{path}: label {unknown[0]} names no class of this dataset; take this file again", file=str(path)
            )
        shown = [label for label in present if label in classes]
        objects = {str(label): encode(labels == label) for label in shown}
        return ImageAnnotation(objects, tuple(Expression(str(label), classes[label], (str(label),)) for label in shown))

    def content(self, name: str) -> Any:
        return list(self._kind.classes.items())

    def paths(self, name: str) -> list[Path]:
        return [self._labels.path(name)]


def labels_folder(name: str, root: Path, split: str) -> Path:
    return root / SETS[name].labels


def read_semantic(name: str, root: Path, split: str) -> ImageSplit:
    """Raises DataError."""
    kind, folder = SETS[name], labels_folder(name, root, split)
    labels, images = listed(folder, "label maps", PNG_ENDINGS), root / kind.images
    if not images.is_dir():
        raise DataError(f"{images}: this folder of images is missing; put the dataset there as released")
    # An image of ADE20K without its label map goes to the quarantine; coco/ has other datasets' images too.
    others = NamedFiles(images, JPEG_ENDINGS).files if kind.all_images else {}
    return ImageSplit(name, split, folder, LabelMaps(kind, images, labels, sorted({*labels.files, *others})), ())


def annotation_file_of(name: str) -> Callable[[Path, str], Path]:
    return partial(labels_folder, name)


def reader_of(name: str) -> Callable[[Path, str], ImageSplit]:
    return partial(read_semantic, name)
