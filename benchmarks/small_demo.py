"""A small demo set as shards without Ray, for benchmarks that need one in seconds."""

from collections.abc import Sequence
from pathlib import Path

from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig


def write_small_demo(folder: Path, splits: Sequence[str], videos: int, frames: int) -> None:
    """FOLDER/raw with the demo's datasets and tokenizer, and FOLDER/shards with `splits` ("dataset/split").

    A split has `videos` videos of `frames` frames of 64x48 in one shard.
    """
    world = DemoWorldConfig(frames=frames, width=64, height=48)
    write_demo_data(DemoDataConfig(folder / "raw", train_videos=videos, valid_videos=videos, world=world))
    for name in splits:
        dataset, _, split_name = name.partition("/")
        split = read_dataset(dataset, folder / "raw", split_name)
        jobs = plan_jobs(split, folder / "raw", folder / "shards" / name, videos)
        for job in jobs:
            ShardMaker().make(job)
        finish_split(split, jobs)
