"""Opening a million images, and random access to them next to bare decoding.

    python benchmarks/image_shards.py [--videos 1000000] [--images 4096] [--reads 2000] [--size 640x480]

First part: an index of a million one-frame videos with one object and two expressions each, made up column by column
(as `glus prepare` joins the tables of its shards), opened in a process of its own: seconds, memory that no file backs,
and seconds to plan and draw the first global batch. Nothing is read of the shards, which are holes of the right size.

Second part: images written by the real writer, 2,048 a tar, read at random: seconds an image of `read_frames`, next to
decoding the same JPEG bytes from memory into a new array, image by image in turn.
"""

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from glus.data_pipeline.raw.jpeg import decode_jpeg
from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression, VideoRecord
from glus.data_pipeline.shards.finish import write_manifest, write_split
from glus.data_pipeline.shards.index import Counts, Manifest, ShardSummary
from glus.data_pipeline.shards.index_table import SCHEMA, spans_from, table_bytes
from glus.data_pipeline.shards.prepare import PrepareConfig
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.storage import Storage
from glus.data_pipeline.shards.tar import encode_sample, write_shard

A_SHARD = PrepareConfig.images_per_shard
DISTINCT = 64
SIZES = (600, 900, 90_000)
"""Bytes of an image's metadata, masks and JPEG."""


def made_up_table(videos: int) -> pa.Table:
    """An index of so many images."""

    def lists(values: pa.Array, length: int) -> pa.Array:
        bounds = pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32))
        return pa.ListArray.from_arrays(bounds, values, type=pa.list_(pa.field("item", values.type, nullable=False)))

    def repeated(text: str, count: int) -> pa.Array:
        return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text]).cast(pa.string())

    numbers = np.arange(videos)
    names = pa.array([f"COCO_train2014_{number:012d}" for number in numbers])
    expressions = pa.StructArray.from_arrays(
        [
            pa.array(np.arange(2 * videos).astype(str)),
            repeated("the thing to the left of the other one", 2 * videos),
            lists(pa.array(np.zeros(2 * videos, np.int32)), 1),
            repeated("", 2 * videos),
            pa.nulls(2 * videos, pa.int32()),
        ],
        fields=list(SCHEMA.field("expressions").type.value_type),
    )
    step = spans_from(0, (*SIZES, 0))[-1][0]
    columns = [
        names,
        names,
        pa.array(np.full(videos, 480, np.int32)),
        pa.array(np.full(videos, 640, np.int32)),
        lists(names, 1),
        lists(pa.array(numbers.astype(str)), 1),
        lists(expressions, 2),
        pa.array((numbers // A_SHARD).astype(np.int32)),
        pa.array((numbers % A_SHARD).astype(np.int64) * step + 512),
        lists(pa.array(np.tile(np.array(SIZES, np.uint32), videos)), len(SIZES)),
        pa.array(np.zeros(videos, np.uint32)),
    ]
    return pa.table(columns, schema=SCHEMA)


def write_made_up(folder: Path, videos: int) -> int:
    """Index, manifest, and shards that are holes. Returns the index's bytes."""
    content = table_bytes(made_up_table(videos))
    size = A_SHARD * spans_from(0, (*SIZES, 0))[-1][0] + 512
    shards = tuple(ShardSummary(f"shard-{number:05d}.tar", size, "") for number in range(-(-videos // A_SHARD)))
    folder.mkdir(parents=True)
    for shard in shards:
        with (folder / shard.name).open("wb") as file:
            file.truncate(size)
    counts = Counts(videos, videos, videos, 2 * videos, videos)
    digest = hashlib.sha256(content).hexdigest()
    write_manifest(Storage.at(folder), Manifest("refcoco", "train", counts, shards, digest, {}, ()), content)
    return len(content)


def own_memory() -> float:
    """MB of this process that no file backs."""
    memory = psutil.Process().memory_full_info()
    return float(memory.rss - memory.shared) / 1e6


def opened(folder: Path) -> dict[str, float]:
    """Open the split in a process that has done nothing else, and ask for images at random places."""
    before = own_memory()
    started, work = time.perf_counter(), time.process_time()
    split = ShardedSplit.open(folder)
    seconds, work = time.perf_counter() - started, time.process_time() - work
    random = np.random.Generator(np.random.Philox(key=1))
    places = random.integers(len(split.videos), size=1000).tolist()
    asked = time.perf_counter()
    for place in places:
        split.videos[place], split.index.spans(place)
    entries = time.perf_counter() - asked
    counted = time.perf_counter()
    split.index.frame_counts(), split.index.target_counts()
    return {
        "open, s": seconds,
        "open, s of one core": work,
        "entry and place of an image, us": 1e6 * entries / len(places),
        "frames and targets of all images, s": time.perf_counter() - counted,
        "memory beyond the mapped index, MB": own_memory() - before,
    }


@dataclass(frozen=True)
class OnePicture:
    """A frame in memory."""

    names: tuple[str, ...]
    content: bytes
    notes: tuple[str, ...] = ()

    def read_bytes(self, index: int) -> bytes:
        return self.content

    def origin(self, index: int) -> str:
        return self.names[index]


def pictures(width: int, height: int) -> list[bytes]:
    """JPEG files of quality 90 with detail at all scales."""
    random = np.random.Generator(np.random.Philox(key=5))
    found = []
    for _ in range(DISTINCT):
        picture = np.zeros((height, width, 3), np.float32)
        for cells, strength in ((6, 70), (24, 35), (96, 18), (width // 3, 9)):
            noise = random.normal(0, strength, (max(2, cells * height // width), cells, 3)).astype(np.float32)
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        jpeg = cv2.imencode(".jpg", np.clip(picture + 110, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        found.append(jpeg.tobytes())
    return found


def write_images(folder: Path, jpegs: Sequence[bytes], images: int, width: int, height: int) -> ShardedSplit:
    """So many one-frame videos by the real writer; the pictures repeat."""
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    code, shards = encode(mask), []
    folder.mkdir(parents=True)
    for first in range(0, images, A_SHARD):
        samples = (
            encode_sample(
                VideoRecord(
                    *("refcoco", "train", f"COCO_train2014_{number:012d}", height, width),
                    OnePicture((f"COCO_train2014_{number:012d}",), jpegs[number % len(jpegs)]),
                    {"1": [code]},
                    (Expression("0", "the left one", ("1",)), Expression("1", "the thing", ("1",))),
                )
            )
            for number in range(first, min(first + A_SHARD, images))
        )
        shards.append(write_shard(folder / f"shard-{first // A_SHARD:05d}.tar", samples))
    write_split(folder, "refcoco", "train", shards)
    return ShardedSplit.open(folder)


def random_access(split: ShardedSplit, jpegs: Sequence[bytes], reads: int) -> dict[str, float]:
    """Medians over single images, from shards and from memory in turn, so that both meet the same machine."""
    entry = split.videos[0]
    random = np.random.Generator(np.random.Philox(key=2))
    ours, bare = [], []
    for place in random.integers(len(split.videos), size=reads).tolist():
        started = time.perf_counter()
        split.read_frames(place, [0])
        read = time.perf_counter()
        picture: NDArray[np.uint8] = np.empty((entry.height, entry.width, 3), np.uint8)
        decode_jpeg(jpegs[place % len(jpegs)], picture)
        bare.append(time.perf_counter() - read)
        ours.append(read - started)
    return {
        "images": len(split.videos),
        "JPEG, kB": sum(map(len, jpegs)) / len(jpegs) / 1e3,
        "read at random, ms": 1e3 * median(ours),
        "bare decoding, ms": 1e3 * median(bare),
        "ratio": median(ours) / median(bare),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--size", default="640x480")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as root:
        index = write_made_up(Path(root) / "refcoco" / "train", args.videos)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = pool.submit(opened, Path(root) / "refcoco" / "train").result()
        results = {"videos": args.videos, "index, MB on disk": index / 1e6, **results}
        jpegs = pictures(width, height)
        with write_images(Path(root) / "images", jpegs, args.images, width, height) as split:
            results |= random_access(split, jpegs, args.reads)
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


if __name__ == "__main__":
    main()
