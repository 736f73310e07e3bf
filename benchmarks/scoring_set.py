"""Scoring all of a set as large as MeViS valid_u: 50 videos, 793 expressions, 80 frames of 854x480, made up.

    python benchmarks/scoring_set.py FOLDER [--videos 50] [--workers 2]

FOLDER takes shards and masks (about 250 MB for 50 videos) and is used again where it has them. Printed are seconds, the
share of reading, and the peak of memory in the first and the last fifth of the videos: it must not grow with the set.
"""

import argparse
import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from glus.common.cores import usable_cores
from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression, VideoRecord
from glus.data_pipeline.shards.finish import write_split
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.data_pipeline.shards.tar import encode_sample, write_shard
from glus.evaluation.predict.predictions import expression_folder, read_masks, write_masks
from glus.evaluation.score.scoring import score_split

HEIGHT, WIDTH, FRAMES, OBJECTS = 480, 854, 80, 4
VIDEOS, EXPRESSIONS = 50, 793
KINDS = 4


@dataclass(frozen=True)
class SameFrame:
    """Frames that nobody looks at here: one JPEG for all."""

    names: tuple[str, ...]
    content: bytes

    def read_bytes(self, index: int) -> bytes:
        return self.content

    def origin(self, index: int) -> str:
        return self.names[index]


def walking_blob(chance: np.random.Generator) -> NDArray[np.bool_]:
    """An object that walks and turns, bool [T, H, W]; it may leave the picture."""
    x, y = chance.uniform(0.2, 0.8, 2) * (WIDTH, HEIGHT)
    dx, dy, turn = chance.uniform(-4, 4, 3)
    axes = tuple(int(side) for side in chance.integers(30, 130, 2))
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t, mask in enumerate(masks):
        cv2.ellipse(mask, (int(x + dx * t), int(y + dy * t)), axes, float(turn * t), 0, 360, 1, -1)
    return masks.astype(bool)


def make(folder: Path, videos: int) -> ShardedSplit:
    """Shards and masks below `folder`. Every KINDS-th video shows the same, and its masks are links: quick to make, and
    nothing that scoring could make use of."""
    place = folder / "shards" / "mevis" / "valid_u"
    if not (place / "manifest.json").is_file():
        place.mkdir(parents=True)
        shown = [blobs_of(kind) for kind in range(min(KINDS, videos))]
        codes = [{name: [encode(mask) for mask in masks] for name, masks in blobs.items()} for blobs in shown]
        jpeg = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 127, np.uint8))[1].tobytes()
        frames = SameFrame(tuple(f"{frame:05d}" for frame in range(FRAMES)), jpeg)
        total = round(EXPRESSIONS * videos / VIDEOS)
        shards = []
        written: dict[tuple[int, str], Path] = {}
        for video in range(videos):
            kind = video % KINDS
            count = total // videos + (video < total % videos)
            said = tuple(Expression(str(n), f"blob {n % OBJECTS}", (str(n % OBJECTS),)) for n in range(count))
            record = VideoRecord("mevis", "valid_u", f"v{video:03d}", HEIGHT, WIDTH, frames, codes[kind], said)
            shards.append(write_shard(place / f"shard-{video:05d}.tar", [encode_sample(record)]))
            predict(folder, record, kind, shown[kind], written)
        write_split(place, "mevis", "valid_u", shards)
    return ShardedSplit.open(place)


def blobs_of(kind: int) -> dict[str, NDArray[np.bool_]]:
    """The objects of a video."""
    chance = np.random.Generator(np.random.Philox(key=kind))
    return {str(number): walking_blob(chance) for number in range(OBJECTS)}


def predict(
    folder: Path,
    record: VideoRecord,
    kind: int,
    blobs: dict[str, NDArray[np.bool_]],
    written: dict[tuple[int, str], Path],
) -> None:
    """The truth a few pixels off; what shows the same object links to the same files."""
    entry = VideoEntry("mevis", "valid_u", record.video, HEIGHT, WIDTH, record.frames.names, record.expressions, ())
    for expression in record.expressions:
        name = expression.object_ids[0]
        if (kind, name) not in written:
            moved = np.roll(blobs[name], (3, -4), (1, 2))
            written[kind, name] = write_masks(folder / "masks", entry, expression, moved)
            continue
        place = expression_folder(folder / "masks", entry, expression)
        place.mkdir(parents=True)
        for file in written[kind, name].iterdir():
            os.link(file, place / file.name)


class Watch(threading.Thread):
    """Samples the resident memory of this process and its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[int] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        own = psutil.Process()
        while not self.stopped.wait(0.2):
            processes = [own, *own.children(recursive=True)]
            self.samples.append(sum(self._resident(each) for each in processes))

    @staticmethod
    def _resident(process: psutil.Process) -> int:
        try:
            return int(process.memory_info().rss)
        except psutil.NoSuchProcess:  # it ended between the listing and the look
            return 0


def cpu_seconds() -> float:
    """Time that this process and its ended children worked: another program on the machine does not change it."""
    return sum(
        use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--workers", type=int, default=usable_cores())
    options = parser.parse_args()
    start = time.perf_counter()
    split = make(options.folder, options.videos)
    print(f"made in {time.perf_counter() - start:.0f} s", flush=True)
    cv2.setNumThreads(1)
    watch = Watch()
    watch.start()
    start, worked = time.perf_counter(), cpu_seconds()
    scores = score_split(split, options.folder / "masks", workers=options.workers)
    seconds, worked = time.perf_counter() - start, cpu_seconds() - worked
    watch.stopped.set()
    watch.join()
    fifth = max(1, len(watch.samples) // 5)
    early, late = (max(part) / 2**20 for part in (watch.samples[fifth : 2 * fifth], watch.samples[-fifth:]))
    frames = sum(score.frames for score in scores)
    read = cpu_seconds()
    entry = split.videos[0]
    for expression in entry.expressions:
        read_masks(options.folder / "masks", entry, expression)
    reading = (cpu_seconds() - read) / (len(entry.expressions) * FRAMES) * frames
    a_mask = 1000 * worked / frames
    mean = np.mean([score.JF for score in scores if score.JF is not None])
    print(f"{len(split.videos)} videos, {len(scores)} expressions, {frames} masks, text control too; J&F {mean:.1f}")
    print(f"{seconds:.0f} s with {options.workers} workers; {worked:.0f} s of a core, {a_mask:.2f} ms a mask")
    print(f"of these, reading the PNGs takes {reading:.0f} s of a core")
    print(f"memory of all processes: {early:.0f} MB at most in the second fifth, {late:.0f} MB in the last")


if __name__ == "__main__":
    main()
