"""Two tiny splits as shards, with what was drawn kept beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from glus.data_pipeline.raw.frames import FrameFolder
from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression, VideoRecord
from glus.data_pipeline.shards.finish import write_split
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.tar import encode_sample, write_shard

PARITY = Path(__file__).parents[1] / "data" / "parity"


@dataclass(frozen=True)
class Drawing:
    """A video as drawn: its JPEGs, and bool [T, H, W] masks by object id."""

    name: str
    jpegs: tuple[bytes, ...]
    masks: dict[str, np.ndarray]
    expressions: tuple[Expression, ...]

    def target(self, expression: Expression, frames: Sequence[int]) -> np.ndarray:
        """bool [N, H, W]: where any object of the expression is."""
        return np.any([self.masks[object_id][list(frames)] for object_id in expression.object_ids], axis=0)

    def frame(self, index: int) -> np.ndarray:
        """uint8 [3, H, W] RGB."""
        return cv2.imdecode(np.frombuffer(self.jpegs[index], np.uint8), cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1)

    @property
    def void(self) -> np.ndarray | None:
        """bool [T, H, W]: the lowest rows of every other frame of "long"; None elsewhere."""
        if self.name != "long":
            return None
        void = np.zeros_like(next(iter(self.masks.values())))
        void[::2, -5:] = True
        return void


def draw(name: str, frames: int, height: int, width: int, targets: Sequence[str]) -> Drawing:
    """`targets` holds the object ids of each expression, "14" for objects 1 and 4. Objects come, move and go."""
    random = np.random.Generator(np.random.Philox(key=sum(name.encode())))
    masks = {}
    for object_id in sorted(set("".join(targets))):
        mask = np.zeros((frames, height, width), bool)
        for index in range(frames):
            top, left = random.integers(0, height - 8), random.integers(0, width - 8)
            if index == 0 or random.random() < 0.8:
                mask[index, top : top + 8, left : left + 8] = True
        masks[object_id] = mask
    pictures = random.integers(0, 256, (frames, height // 4, width // 4, 3), dtype=np.uint8)
    jpegs = [cv2.imencode(".jpg", cv2.resize(picture, (width, height)))[1].tobytes() for picture in pictures]
    said = [Expression(str(n), f"Thing {target} of {name} no {n}", tuple(target)) for n, target in enumerate(targets)]
    return Drawing(name, tuple(jpegs), masks, tuple(said))


def drawn_splits() -> dict[str, list[Drawing]]:
    """Of mevis/train, "short" and "hidden" cannot be trained on; only "groups" and "long" have a pair and a rival."""
    return {
        "mevis/train": [
            draw("groups", 9, 32, 48, ["1", "1", "4", "4", "14", "7", ""]),
            draw("one_object", 6, 32, 48, ["1", "1", "1"]),
            draw("no_pair", 5, 40, 28, ["1", "4"]),
            draw("short", 3, 32, 48, ["1"]),
            draw("hidden", 8, 32, 48, [""]),
        ],
        "refer_youtube_vos/train": [
            draw("long", 23, 28, 36, ["1", "1", "4", "4"]),
            draw("exact", 4, 28, 36, ["4"]),
        ],
    }


def write_splits(root: Path, drawn: dict[str, list[Drawing]] | None = None) -> list[ShardedSplit]:
    """Write `drawn`, else `drawn_splits`, below `root`, one shard a split, and open them."""
    splits = []
    for place, drawings in (drawn or drawn_splits()).items():
        dataset, split = place.split("/")
        samples = [encode_sample(_record(root / "frames", dataset, split, drawing)) for drawing in drawings]
        folder = root / place
        write_split(folder, dataset, split, [write_shard(folder / "shard-00000.tar", samples)])
        splits.append(ShardedSplit.open(folder))
    return splits


def _record(root: Path, dataset: str, split: str, drawing: Drawing) -> VideoRecord:
    folder = root / dataset / drawing.name
    folder.mkdir(parents=True)
    names = tuple(f"{5 * index:05d}" for index in range(len(drawing.jpegs)))
    for name, content in zip(names, drawing.jpegs, strict=True):
        (folder / f"{name}.jpg").write_bytes(content)
    height, width = cv2.imdecode(np.frombuffer(drawing.jpegs[0], np.uint8), cv2.IMREAD_COLOR).shape[:2]
    objects = {
        object_id: [encode(mask) if mask.any() else None for mask in masks]
        for object_id, masks in drawing.masks.items()
    }
    void = drawing.void
    return VideoRecord(
        dataset,
        split,
        drawing.name,
        height,
        width,
        FrameFolder(folder, names),
        objects,
        drawing.expressions,
        None if void is None else [encode(mask) if mask.any() else None for mask in void],
    )
