"""Memory and time to open the index of ten million expressions and draw from it, on a made-up index.

    python benchmarks/data_plan.py [--expressions 10000000]

Videos have 8 expressions for 3 objects and 24 frames. Results: seconds to write the made-up index (not counted), to
open the split (its digest is checked), to make the plan, and to draw the first global batch; memory of the process
that no other file backs.
"""

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig
from glus.data_pipeline.shards.finish import write_manifest
from glus.data_pipeline.shards.index import Counts, Manifest, ShardSummary
from glus.data_pipeline.shards.index_table import SCHEMA, table_bytes
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.storage import Storage

EXPRESSIONS, OBJECTS, FRAMES, VIDEOS_A_SHARD = 8, 3, 24, 4096


def made_up_table(videos: int) -> pa.Table:
    """An index of so many videos, column by column."""

    def lists(values: pa.Array, length: int) -> pa.Array:
        bounds = pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32))
        kind = pa.list_(pa.field("item", values.type, nullable=False))
        return pa.ListArray.from_arrays(bounds, values, type=kind)

    numbers = np.arange(videos)
    names = pa.array([f"video-{number:08d}" for number in numbers])
    said = videos * EXPRESSIONS
    objects = pa.array(np.tile(np.array([0, 0, 1, 1, 2, 2, 0, 1], np.int32), videos))
    text = "the thing that moves to the left behind the other one"
    expressions = pa.StructArray.from_arrays(
        [
            pa.array(np.tile(np.arange(EXPRESSIONS), videos).astype(str)),
            pa.DictionaryArray.from_arrays(np.zeros(said, np.int32), [text]).cast(pa.string()),
            lists(objects, 1),
            pa.DictionaryArray.from_arrays(np.zeros(said, np.int32), [""]).cast(pa.string()),
            pa.nulls(said, pa.int32()),
        ],
        fields=list(SCHEMA.field("expressions").type.value_type),
    )
    frame_names = pa.array([f"{5 * index:05d}" for index in range(FRAMES)])
    columns = [
        names,
        names,
        pa.array(np.full(videos, 480, np.int32)),
        pa.array(np.full(videos, 854, np.int32)),
        lists(frame_names.take(pa.array(np.tile(np.arange(FRAMES), videos))), FRAMES),
        lists(pa.array(np.tile(np.arange(1, OBJECTS + 1), videos).astype(str)), OBJECTS),
        lists(expressions, EXPRESSIONS),
        pa.array((numbers // VIDEOS_A_SHARD).astype(np.int32)),
        pa.array((numbers % VIDEOS_A_SHARD).astype(np.int64) * 2_000_000 + 512),
        lists(pa.array(np.full(videos * (FRAMES + 2), 80_000, np.uint32)), FRAMES + 2),
        pa.array(np.zeros(videos, np.uint32)),
    ]
    return pa.table(columns, schema=SCHEMA)


def write_made_up(folder: Path, videos: int) -> int:
    """Index, manifest and empty shards of the right size (no disk is used for them). Returns the index's bytes."""
    content = table_bytes(made_up_table(videos))
    size = VIDEOS_A_SHARD * 2_000_000
    shards = [ShardSummary(f"shard-{number:05d}.tar", size, "") for number in range(-(-videos // VIDEOS_A_SHARD))]
    folder.mkdir(parents=True)
    for shard in shards:
        with open(folder / shard.name, "wb") as file:
            file.truncate(size)
    counts = Counts(videos, videos * FRAMES, videos * OBJECTS, videos * EXPRESSIONS, videos * OBJECTS)
    digest = hashlib.sha256(content).hexdigest()
    write_manifest(Storage.at(folder), Manifest("mevis", "train", counts, tuple(shards), digest, {}, ()), content)
    return len(content)


def own_memory() -> float:
    """MB of this process that no file backs: what it would need swap for."""
    memory = psutil.Process().memory_full_info()
    return float(memory.rss - memory.shared) / 1e6


def opened_and_drawn(folder: Path) -> dict[str, float]:
    """Open, plan, draw, in a process that has done nothing else."""
    before = own_memory()
    started, work = time.perf_counter(), time.process_time()
    split = ShardedSplit.open(folder)
    opened = time.perf_counter()
    plan = SamplePlan([split], SamplingConfig(mixture={"mevis/train": 1.0}), 0, 80)
    planned = time.perf_counter()
    plan.global_batch(0)
    drawn = time.perf_counter()
    return {
        "open, s": opened - started,
        "plan, s": planned - opened,
        "first global batch of 80, s": drawn - planned,
        "start, s": drawn - started,
        "start, s of one core": time.process_time() - work,
        "memory beyond the mapped index, MB": own_memory() - before,
    }


def measure(expressions: int) -> dict[str, float]:
    """Write the index here, and use it in another process."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "mevis" / "train"
        videos = expressions // EXPRESSIONS
        size = write_made_up(folder, videos)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = pool.submit(opened_and_drawn, folder).result()
        return {"expressions": videos * EXPRESSIONS, "videos": videos, "index, MB on disk": size / 1e6} | results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--expressions", type=int, default=10_000_000)
    print(json.dumps({name: round(value, 2) for name, value in measure(parser.parse_args().expressions).items()}))


if __name__ == "__main__":
    main()
