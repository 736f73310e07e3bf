"""Samples a second of the loader, next to bare decoding and the reference's loader, in one run.

    python benchmarks/data_loader.py [--size 854x480] [--workers 2] [--samples 160] [--frames FOLDER]

Bare decoding: the same frames of the same slots, already in memory, by the same library and number of threads, into a
new array each. The reference's way (its dataset/refer_video_seg_dataset.py): as many processes of torch's DataLoader,
which read eight frames of a sample with OpenCV, run transformers' CLIP processor on each, and resize each to 1024x1024
for SAM 2. Painting the masks, which the model's device does, is printed next to it. FOLDER holds JPEG frames to take
instead of made-up ones; they are scaled to the size.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from glus.common.cores import usable_cores
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.raw.frames import FrameFolder
from glus.data_pipeline.raw.jpeg import decode_jpeg
from glus.data_pipeline.raw.masks import decode, encode
from glus.data_pipeline.raw.records import Expression, VideoRecord
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig, Slot
from glus.data_pipeline.shards.finish import write_split
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.tar import encode_sample, write_shard

TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "parity"
VIDEOS, FRAMES, OBJECTS, MICRO_BATCH = 6, 24, 3, 2
SAM_SIZE = 1024


def made_up(random: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """A frame with detail at all scales, so that its JPEG is about as large as a video's."""
    frame = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((6, 70), (24, 35), (96, 18), (width // 3, 9)):
        noise = random.normal(0, strength, (max(2, cells * height // width), cells, 3)).astype(np.float32)
        frame += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(frame + 110, 0, 255).astype(np.uint8)


def write_raw(root: Path, width: int, height: int, source: Path | None) -> list[VideoRecord]:
    """Videos with three objects and six expressions each, their frames as JPEG files of quality 90."""
    random = np.random.Generator(np.random.Philox(key=5))
    real = sorted(source.rglob("*.jpg")) if source else []
    records = []
    for number in range(VIDEOS):
        folder = root / f"video{number}"
        folder.mkdir(parents=True)
        names = tuple(f"{index:05d}" for index in range(FRAMES))
        for index, name in enumerate(names):
            if real:
                frame = cv2.resize(cv2.imread(str(real[(number * FRAMES + index) % len(real)])), (width, height))
            else:
                frame = made_up(random, width, height)
            cv2.imwrite(str(folder / f"{name}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 90])
        objects = {str(each + 1): [_blob(random, width, height) for _ in names] for each in range(OBJECTS)}
        said = tuple(
            Expression(str(each), f"the thing number {each} that moves to the left", (str(each // 2 + 1),))
            for each in range(2 * OBJECTS)
        )
        records.append(
            VideoRecord("mevis", "train", folder.name, height, width, FrameFolder(folder, names), objects, said)
        )
    return records


def _blob(random: np.random.Generator, width: int, height: int) -> dict[str, Any]:
    mask = np.zeros((height, width), np.uint8)
    middle = (int(random.integers(width)), int(random.integers(height)))
    size = (int(random.integers(width // 20, width // 5)), int(random.integers(height // 20, height // 4)))
    points = cv2.ellipse2Poly(middle, size, int(random.integers(180)), 0, 360, 5)
    cv2.fillPoly(mask, [points + random.integers(-3, 4, points.shape)], 1)
    return encode(mask.astype(bool))


def bare_decoding(held: list[list[bytes]], shape: tuple[int, int, int], workers: int) -> None:
    """Decode the frames of each slot, a slot a thread."""

    def one(jpegs: list[bytes]) -> None:
        for content in jpegs:
            decode_jpeg(content, np.empty(shape, np.uint8))

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, held))


class ReferenceSamples(Dataset[Any]):
    """The reference's __getitem__ on the same slots, without its conversations."""

    def __init__(self, root: Path, records: list[VideoRecord], slots: list[Slot]) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.root, self.records, self.slots = root, records, slots
        self.clip = CLIPImageProcessorPil()

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, number: int) -> Any:
        slot = self.slots[number]
        record = self.records[slot.video]
        frames, clips = [], []
        for index in (*slot.context, *slot.query):
            path = self.root / record.video / f"{record.frames.names[index]}.jpg"
            frame = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            clips.append(self.clip.preprocess(frame, return_tensors="pt")["pixel_values"][0])
            # SAM2Transforms: to a tensor in [0, 1], resized with antialiasing, normalised.
            scaled = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
            resized = F.interpolate(scaled[None], (SAM_SIZE, SAM_SIZE), mode="bilinear", antialias=True)[0]
            frames.append((resized - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / 0.225)
        masks = np.zeros((len(slot.expressions), len(slot.query), record.height, record.width), np.uint8)
        for row, expression in enumerate(slot.expressions):
            for object_id in record.expressions[expression].object_ids:
                for column, index in enumerate(slot.query):
                    masks[row, column] += decode(record.objects[object_id][index], record.height, record.width)
        return torch.stack(frames), torch.stack(clips), torch.from_numpy(masks)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def reference_way(samples: ReferenceSamples, workers: int) -> Iterator[None]:
    """Go through the samples; the first is waited for before the clock starts, with it the processes' start."""
    loader = DataLoader(
        samples,
        batch_size=MICRO_BATCH,
        num_workers=workers,
        worker_init_fn=_one_thread,
        collate_fn=list,
        multiprocessing_context="fork",
    )
    for _ in loader:
        yield


def paint(batch: Batch) -> float:
    """Seconds for a batch's masks to become pixels on the device that trains."""
    moved = batch.to("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    for masks in moved.masks:
        masks.painted()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of this process's cores."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def measure(width: int, height: int, workers: int, samples: int, rounds: int, source: Path | None) -> dict[str, float]:
    """Samples a second of the three ways, and their ratios; the best of `rounds` turns for each of the first two."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = write_raw(root / "raw", width, height, source)
        shards = root / "shards" / "mevis" / "train"
        shard = write_shard(shards / "shard-00000.tar", [encode_sample(record) for record in records])
        write_split(shards, "mevis", "train", [shard])
        split = ShardedSplit.open(shards)
        plan = SamplePlan([split], SamplingConfig(mixture={"mevis/train": 1.0}), 0, samples)
        slots = plan.global_batch(0)
        settings: dict[str, int] = {"rank": 0, "ranks": 1, "size": MICRO_BATCH, "start": 0, "stop": 10**9}
        with Loader(plan, Tokenizer(TOKENIZER), workers=workers, **settings) as loader:

            def load() -> None:
                # By a loader that is at work already, as in a run.
                for _ in range(samples // MICRO_BATCH):
                    assert len(next(loader).frames) == MICRO_BATCH
                # What it has read ahead counts too: it had as much before.
                wait(loader._ahead)

            loads, bares = [], []
            for turn in range(rounds + 1):
                # In turn, so that what else the machine does meets both alike, and the frames of the same slots.
                same = plan.global_batch(turn)
                held = [list(split.read_jpegs(slot.video, sorted({*slot.context, *slot.query}))) for slot in same]
                loads.append(seconds(load))
                bares.append(seconds(partial(bare_decoding, held, (height, width, 3), workers)))
            painting = min(paint(next(loader)) for _ in range(rounds + 1))
        # In the first turn memory is taken from the system.
        del loads[0], bares[0]
        few = slots[: max(samples // 8, 2 * MICRO_BATCH * (workers + 1))]
        way = reference_way(ReferenceSamples(root / "raw", records, few), workers)
        next(way)
        reference = seconds(lambda: list(way))[0] / (len(few) - MICRO_BATCH)
        frames = sum(len({*slot.context, *slot.query}) for slot in slots) / len(slots)
        jpeg = np.mean([len(next(split.read_jpegs(0, [index]))) for index in range(FRAMES)])
    ratios = [bare_time / load_time for (bare_time, _), (load_time, _) in zip(bares, loads, strict=True)]
    (best_load, load_core), (best_bare, bare_core) = (map(min, zip(*turns, strict=True)) for turns in (loads, bares))
    return {
        "kB a frame": float(jpeg) / 1000,
        "frames a sample": frames,
        "loader, samples/s": samples / best_load,
        "bare decoding, samples/s": samples / best_bare,
        "reference's way, samples/s": 1 / reference,
        "loader : bare decoding": best_bare / best_load,
        "loader : bare decoding, median of turns": float(np.median(ratios)),
        "loader : bare decoding, seconds of cores": bare_core / load_core,
        "loader : reference's way": samples / best_load * reference,
        "painting masks on the model's device, ms a sample": 1000 * painting / MICRO_BATCH,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", nargs="*", default=["854x480", "1280x720"])
    parser.add_argument("--workers", type=int, default=min(4, usable_cores()))
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    for size in arguments.size:
        width, height = map(int, size.split("x"))
        results = measure(width, height, arguments.workers, arguments.samples, arguments.rounds, arguments.frames)
        print(json.dumps({"size": size, "workers": arguments.workers} | results, indent=1))


if __name__ == "__main__":
    main()
