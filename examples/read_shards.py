"""Read shards with plain webdataset and pycocotools: no class of this project is needed.

python examples/read_shards.py SHARDS/DATASET/SPLIT
"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco


def read_videos(split: Path) -> Iterator[tuple[dict[str, Any], list[NDArray[np.uint8]], dict[str, NDArray[np.uint8]]]]:
    """Yield (metadata, frames, masks): frames are [H, W, 3]; masks map an object id to [frames, H, W], 0 and 1."""
    shards = sorted(str(path) for path in split.glob("shard-*.tar"))
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        video = json.loads(sample["video.json"])
        names = [f"{number:05d}.jpg" for number in range(len(video["frame_names"]))]
        frames = [np.asarray(Image.open(io.BytesIO(sample[name]), formats=["JPEG"])) for name in names]
        codes = json.loads(sample["masks.json"])
        empty = np.zeros((video["height"], video["width"]), np.uint8)
        masks = {
            object_id: np.stack([empty if code is None else coco.decode(code) for code in per_frame])
            for object_id, per_frame in codes.items()
        }
        yield video, frames, masks


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for video, frames, masks in read_videos(Path(sys.argv[1])):
        print(f"{video['video']}: {len(frames)} frames, {len(masks)} objects")
        for expression in video["expressions"]:
            seen = sum(int(masks[each].sum()) for each in expression["object_ids"])
            print(f"  {expression['text']!r}: {seen} mask pixels")
