"""Small image datasets in their released layouts, written here by hand."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 56
SQUARE = [[5.0, 5.0, 20.5, 5.0, 20.5, 18.0, 5.0, 18.0]]
TWO_PARTS = [[2, 2, 9, 2, 9, 9], [30, 20, 50, 20, 50, 36, 30, 36]]


def jpeg(seed: int) -> bytes:
    rng = np.random.Generator(np.random.Philox(key=seed))
    picture = cv2.resize(rng.integers(0, 255, (5, 7, 3), np.uint8), (WIDTH, HEIGHT))
    return bytes(cv2.imencode(".jpg", picture)[1])


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_json(path: Path, content: object) -> None:
    write(path, json.dumps(content).encode())


def instances(folder: str = "COCO_train2014_", run: int = 1) -> dict:
    """Three images; annotations as polygons, two polygons, an uncompressed code of a crowd, and a list of codes."""
    crowd = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 3, HEIGHT * 4, HEIGHT * (WIDTH - 7)]}
    images = [
        {"id": 10 + n, "file_name": f"{folder}{10 + n:012d}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(3)
    ]
    segmentations = [(10, SQUARE), (10, TWO_PARTS), (11, crowd), (11, []), (12, SQUARE), (12, TWO_PARTS)]
    annotations = [
        {"id": 100 + n, "image_id": image, "segmentation": found, "category_id": 1 + n % 2, "iscrowd": 0}
        for n, (image, found) in enumerate(segmentations)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def refs(splits: tuple[str, ...]) -> list[dict]:
    """Two refs an image of every split but the first has one image: image 10 + n belongs to split n."""
    found = []
    for n, split in enumerate((splits * 3)[:3]):
        for part in range(2):
            sentences = [
                {"sent_id": 20 * n + 4 * part + k, "sent": text, "raw": text.upper(), "tokens": text.split()}
                for k, text in enumerate((" the 'left' caf\xe9", "one of two"))
            ]
            found.append(
                {
                    "ref_id": 2 * n + part,
                    "ann_id": 100 + 2 * n + part,
                    "image_id": 10 + n,
                    "split": split,
                    "category_id": 1,
                    "file_name": f"COCO_{n}_{part}.jpg",
                    "sentences": sentences,
                    "sent_ids": [each["sent_id"] for each in sentences],
                }
            )
    return found


def write_refer(root: Path, folder: str, file: str, splits: tuple[str, ...]) -> Path:
    """The folder of a dataset of the refCOCO family. Pickles are of Python 2's protocol."""
    place = root / "refer_seg" / folder
    write_json(place / "instances.json", instances())
    write(place / file, pickle.dumps(refs(splits), protocol=2))
    for n in range(3):
        name = f"COCO_train2014_{10 + n:012d}.jpg"
        write(root / "refer_seg/images/mscoco/images/train2014" / name, jpeg(n))
    return place


def reason_seg_json(sentence: bool = True, text: str = "what would a vet look at?") -> dict:
    """A target, a hole of what is ignored in it, a small target in the hole, and a flag."""
    big, hole, small = (
        [[4, 4], [40, 4], [40, 30], [4, 30]],
        [[10, 10], [30.7, 10], [30, 25], [10, 25]],
        [[15, 15], [20, 15], [20, 20]],
    )
    shapes = [
        {"label": "target", "labels": ["target"], "shape_type": "polygon", "points": small},
        {"label": "ignore", "points": hole},
        {"label": "target", "points": big},
        {"label": "flag", "points": [[0, 0]]},
    ]
    return {"text": [text, "the animal"], "is_sentence": sentence, "shapes": shapes}


def write_reason_seg(root: Path) -> Path:
    """A split of two images: the first's JSON is UTF-8, the second's cp1252."""
    place = root / "reason_seg" / "ReasonSeg"
    for split in ("train", "val"):
        for n in range(2):
            write(place / split / f"{n}_o.jpg", jpeg(n))
        write_json(place / split / "0_o.json", reason_seg_json())
        words = reason_seg_json(False, "the caf\xe9\u2019s sign")
        write(place / split / "1_o.json", json.dumps(words, ensure_ascii=False).encode("cp1252"))
    return place


def labels(values: tuple[int, ...]) -> np.ndarray:
    """uint8 [H, W] of upright stripes with these values."""
    stripes = np.array(values, np.uint8)[np.arange(WIDTH) * len(values) // WIDTH]
    return np.repeat(stripes[None], HEIGHT, 0)


def write_semantic(root: Path) -> None:
    for n, (ade, coco) in enumerate((((0, 1, 150, 13), (0, 255, 95, 181)), ((2, 2, 0), (171, 255, 168)))):
        write(root / f"ade20k/images/training/ADE_train_{n}.jpg", jpeg(n))
        write(root / f"coco/train2017/{n:012d}.jpg", jpeg(n + 5))
        for place, values in (
            (f"ade20k/annotations/training/ADE_train_{n}.png", ade),
            (f"cocostuff/train2017/{n:012d}.png", coco),
        ):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels(values)).save(root / place)


def write_parts(root: Path) -> None:
    for folder, path, images, names in (
        (
            "train2017/",
            "vlpart/paco/annotations/paco_lvis_v1_train.json",
            "coco",
            ("mug_(cup)", "mug_(cup):handle_(of)"),
        ),
        (
            "",
            "vlpart/pascal_part/train.json",
            "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages",
            ("dog:head", "dog:tail"),
        ),
    ):
        content = instances(folder) | {"categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)]}
        write_json(root / path, content)
        for n, image in enumerate(content["images"]):
            write(root / images / image["file_name"], jpeg(n))


def write_youtube_vos(root: Path) -> None:
    """One video of three frames: two cars and a cow."""
    place = root / "YouTube-VOS" / "train"
    for n in range(3):
        write(place / "JPEGImages" / "003234408d" / f"{5 * n:05d}.jpg", jpeg(n))
        (place / "Annotations" / "003234408d").mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels((0, 1, 2, 3) if n else (0, 1, 0, 0))).save(
            place / "Annotations/003234408d" / f"{5 * n:05d}.png"
        )
    objects = {"1": "car", "2": "cow", "3": "car"}
    content = {"objects": {key: {"category": name, "frames": ["00000"]} for key, name in objects.items()}}
    write_json(place / "meta.json", {"videos": {"003234408d": content}})


def write_all(root: Path) -> Path:
    write_refer(root, "refcoco", "refs(unc).p", ("train", "val", "testA"))
    write_refer(root, "refcoco+", "refs(unc).p", ("train", "val", "testB"))
    write_refer(root, "refcocog", "refs(umd).p", ("train", "val", "test"))
    write_reason_seg(root)
    write_semantic(root)
    write_parts(root)
    write_youtube_vos(root)
    return root
