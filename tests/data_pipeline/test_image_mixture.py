"""Images and videos in one global batch: what an image looks like there, and that ranks and stops change no sample."""

from pathlib import Path

import numpy as np
import pytest

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.datasets.table import holds_images, read_dataset
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.reader import open_splits
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig

from .videolisa_recording import toy_tokenizer

MIXTURE = {"refcoco/train": 1.0, "reason_seg/train": 1.0, "mevis/train": 2.0}
CONFIG = SamplingConfig(
    mixture=MIXTURE, frame_choice="sparse_dense", context_frames=32, query_frames=4, expressions=2, prompts="videolisa"
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SamplePlan:
    root = tmp_path_factory.mktemp("mixture")
    world = DemoWorldConfig(frames=5, width=48, height=32, max_objects=3)
    write_demo_data(
        DemoDataConfig(root / "raw", train_videos=3, valid_videos=1, world=world, train_images=6, valid_images=1),
        ["say"],
    )
    for name in MIXTURE:
        dataset, split = name.split("/")
        source = read_dataset(dataset, root / "raw", split)
        jobs = plan_jobs(source, root / "raw", root / "shards" / name, 6)
        maker = ShardMaker()
        for job in jobs:
            maker.make(job)
        finish_split(source, jobs)
    return SamplePlan(open_splits(root / "shards", list(MIXTURE)), CONFIG, seed=4, slots=4)


def samples(plan: SamplePlan, *stages: tuple[int, int, int]) -> list[tuple[object, ...]]:
    """The micro-batches of (ranks, first step, step behind the last), in the plan's order, as what they hold."""
    found = []
    for ranks, start, stop in stages:
        loaders = [
            Loader(plan, toy_tokenizer(), rank=rank, ranks=ranks, size=1, start=start, stop=stop, workers=rank)
            for rank in range(ranks)
        ]
        for batches in zip(*loaders, strict=True):
            found += [content(batch) for batch in batches]
    return found


def content(batch: Batch) -> tuple[object, ...]:
    frames = b"".join(bytes(np.asarray(each)) for each in batch.frames)
    masks = b"".join(np.packbits(each.painted().numpy()).tobytes() for each in batch.masks)
    return repr(batch.split), repr(batch.video_key), batch.ids.tolist(), batch.answer.tolist(), frames, masks


def test_half_of_the_samples_are_images_shown_in_every_place(plan):
    slots = [plan.slot(step, 0) for step in range(1024)]
    images = [slot for slot in slots if holds_images(plan.splits[slot.split].dataset)]
    assert len(images) == 512
    assert {(slot.context, slot.query) for slot in images} == {((0,) * 32, (0,) * 4)}


def test_an_image_is_one_frame_with_its_mask_four_times(plan):
    slot = next(
        slot for step in range(20) for slot in plan.global_batch(step) if holds_images(plan.splits[slot.split].dataset)
    )
    step = next(step for step in range(20) if slot in plan.global_batch(step))
    place = plan.global_batch(step).index(slot)
    batches = list(Loader(plan, toy_tokenizer(), rank=0, ranks=1, size=1, start=step, stop=step + 1))
    batch = batches[place]
    assert batch.frames[0].shape == (1, 3, 32, 48) and not batch.context.any() and not batch.query.any()
    split = plan.splits[slot.split]
    entry = split.videos[slot.video]
    target = split.read_targets(slot.video, [entry.expressions[each] for each in slot.expressions], [0])
    assert np.array_equal(batch.masks[0].painted().numpy(), np.repeat(target, 4, axis=1))


def test_two_one_and_two_ranks_take_the_samples_of_one(plan):
    once = samples(plan, (1, 0, 6))
    assert len(once) == 24 and len({repr(each) for each in once}) > 12
    assert samples(plan, (2, 0, 2), (1, 2, 4), (2, 4, 6)) == once
    # A run that was killed in step 3 begins it again.
    assert samples(plan, (2, 0, 3))[:8] + samples(plan, (2, 2, 6)) == once


def test_records_keep_the_splits_of_the_mixture(plan):
    assert plan.config.mixture == MIXTURE
    assert [f"{each.dataset}/{each.split}" for each in plan.splits] == [*MIXTURE]
    assert Path(str(plan.splits[0].storage)).name == "train"
