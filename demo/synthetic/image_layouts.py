"""Demo images on disk in the layouts of refCOCO and ReasonSeg, as released: one writer a dataset.

An image is one frame of a demo video, with those expressions that need no motion and whose objects it shows.
"""

import json
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glus.data_pipeline.raw.masks import encode
from glus.demo.synthetic.expressions import KNOWLEDGE, DemoExpression
from glus.demo.synthetic.layouts import write_jpeg
from glus.demo.synthetic.objects import SHAPES
from glus.demo.synthetic.world import DemoWorldConfig, demo_video

#: Pixels of an object that must be seen, in a frame of 96 x 96; more in a larger one.
SEEN = 24
_NEEDS_MOTION = frozenset(text for (field, _), texts in KNOWLEDGE.items() if field == "motion" for text in texts)


@dataclass(frozen=True, eq=False)
class DemoImage:
    """`picture` uint8 [H, W, 3] RGB; `masks[id]` bool [H, W] and `shapes[id]` of the objects; what is said of them."""

    name: str
    picture: NDArray[np.uint8]
    masks: Mapping[int, NDArray[np.bool_]]
    shapes: Mapping[int, str]
    expressions: tuple[DemoExpression, ...]


ImageSplits = Mapping[str, Iterable[DemoImage]]


def demo_image(seed: int, key: str, world: DemoWorldConfig, kinds: tuple[str, ...]) -> DemoImage:
    """The image that (seed, key, world) names: the first of its videos that has an expression of `kinds`."""
    for attempt in count():
        video = demo_video(seed, f"{key}/{attempt}", world)
        frame = len(video.frames) // 2
        masks = {number: mask[frame] for number, mask in video.masks.items()}
        least = SEEN * world.width * world.height / 96**2
        seen = {number for number, mask in masks.items() if mask.sum() >= least}
        said = tuple(
            each
            for each in video.expressions
            if each.kind in kinds and each.text not in _NEEDS_MOTION and set(each.object_ids) <= seen
        )
        if said:
            shapes = {thing.id: thing.shape for thing in video.objects}
            return DemoImage(key, np.ascontiguousarray(video.frames[frame]), masks, shapes, said)
    raise AssertionError("count() does not end")


def write_refcoco(root: Path, splits: ImageSplits) -> None:
    """refer_seg/refcoco: instances.json with run lengths, refs(unc).p in Python 2's protocol, as the released one."""
    folder, images = root / "refer_seg" / "refcoco", root / "refer_seg/images/mscoco/images/train2014"
    listed, annotations, refs = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    sentences = count()
    images.mkdir(parents=True)
    for split, drawn in splits.items():
        for image in drawn:
            number = len(listed) + 1
            height, width = image.picture.shape[:2]
            name = f"COCO_train2014_{number:012d}.jpg"
            write_jpeg(images / name, image.picture)
            listed.append({"id": number, "file_name": name, "height": height, "width": width})
            for object_id, mask in image.masks.items():
                said = [each for each in image.expressions if each.object_ids == (object_id,)]
                if not said:
                    continue
                category = list(SHAPES).index(image.shapes[object_id]) + 1
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
                annotations.append(annotation | {"segmentation": [encode(mask)], "area": int(mask.sum())})
                entries = [_sentence(each, next(sentences)) for each in said]
                ref: dict[str, Any] = {
                    "ref_id": len(refs),
                    "ann_id": annotation["id"],
                    "image_id": number,
                    "category_id": category,
                }
                ref |= {"split": split, "file_name": f"{name[:-4]}_{annotation['id']}.jpg", "sentences": entries}
                refs.append(ref | {"sent_ids": [entry["sent_id"] for entry in entries]})
    categories = [{"id": number, "name": shape} for number, shape in enumerate(SHAPES, start=1)]
    folder.mkdir(parents=True)
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


def write_reason_seg(root: Path, splits: ImageSplits) -> None:
    """reason_seg/ReasonSeg: next to each JPEG a JSON with its texts and polygons. Images are those of one_target."""
    for split, drawn in splits.items():
        folder = root / "reason_seg" / "ReasonSeg" / split
        folder.mkdir(parents=True)
        for number, image in enumerate(drawn):
            name = f"{number:05d}_o"
            write_jpeg(folder / f"{name}.jpg", image.picture)
            first, texts = image.expressions[0], [each.text for each in image.expressions]
            mask = np.any([image.masks[number] for number in first.object_ids], axis=0)
            shapes = [{"label": "target", "shape_type": "polygon", "points": points} for points in polygons(mask)]
            content = {"text": texts, "is_sentence": first.text.endswith("?"), "shapes": shapes}
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def one_target(image: DemoImage) -> DemoImage:
    """The image with what ReasonSeg's layout keeps of it: expressions of one object, all questions or none."""
    first = image.expressions[0]
    kept = [each for each in image.expressions if each.object_ids == first.object_ids]
    same = [each for each in kept if each.text.endswith("?") == first.text.endswith("?")]
    return replace(image, expressions=tuple(same))


def polygons(mask: NDArray[np.bool_]) -> list[list[list[int]]]:
    """Outlines [x, y] of each part of a mask, which OpenCV paints as that mask; a hole hangs on its outline by a seam.

    Parts of fewer than three outline points are left out.
    """
    outlines, levels = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    found = []
    for number, outline in enumerate(outlines):
        if levels[0, number, 3] >= 0 or len(outline) < 3:
            continue
        points = outline[:, 0].astype(int)
        for hole, inner in enumerate(outlines):
            if levels[0, hole, 3] == number:
                points = _joined(points, inner[:, 0].astype(int))
        found.append(points.tolist())
    return found


def _joined(outer: NDArray[np.int_], inner: NDArray[np.int_]) -> NDArray[np.int_]:
    """One closed line around both, there and back over the shortest way between them."""
    distances = np.abs(outer[:, None] - inner[None]).max(axis=2)
    at, start = np.unravel_index(distances.argmin(), distances.shape)
    around = np.roll(inner, -int(start), axis=0)
    return np.concatenate([outer[: at + 1], around, around[:1], outer[at:]])


def _sentence(expression: DemoExpression, number: int) -> dict[str, Any]:
    text = expression.text
    return {"sent_id": number, "sent": text, "raw": text, "tokens": text.split()}
