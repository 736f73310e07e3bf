"""A run that goes on with another number of ranks: 2, then 1, then 2, beside one on 2 that never stopped."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import glus.training.train as training
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import StopFlag
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.run_record import run_of_folder
from tests.forked import run_elastic
from tests.tiny_videolisa_run import IMAGES, VIDEOLISA

#: Two groups of parameters: DeepSpeed's universal checkpoint gives all groups the settings of the first.
FACTORS = 'optimizer.factors={"segmenter.*": 0.5}'
STEPS = 4
#: Trained: a small part, so that frozen weights are not in the engine's state.
TABLE = 'trainable=["*lora_*", "language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*"]'


def digest(batch: Batch) -> str:
    """Of all that the model sees of a batch."""
    found = hashlib.sha256()
    parts = [*batch.frames, batch.context, batch.query, batch.ids, batch.attention]
    parts += [masks.painted() for masks in batch.masks]
    for part in parts:
        assert isinstance(part, Tensor)
        found.update(part.contiguous().numpy().tobytes())
    return found.hexdigest()


def one_rank(config: RunConfig, one_step: bool) -> None:
    """A rank: trains to the end, or is told to stop before it began, so that it takes one step.

    Appends to OUT/given.jsonl of each micro-batch that it trained on: step, place in the global batch, ids, digest.
    """
    rank, flag = Rank.from_environment(), StopFlag()

    class Noted(Loader):
        def __next__(self) -> Batch:
            step, slots = self.slots_of(self.position)
            batch = super().__next__()
            given = [step, slots.start // self.size, batch.names, batch.query_numbers.tolist(), digest(batch)]
            with open(Path(config.out) / "given.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(given) + "\n")
            return batch

    training.Loader = Noted
    with flag.listening():
        if one_step and rank.rank == rank.ranks - 1:  # not the first of two: they must agree
            os.kill(os.getpid(), signal.SIGUSR2)
        training.train(config, rank, flag)


def train_on(ranks: int, config: RunConfig, elastic: Path, one_step: bool = False) -> Path:
    """The last checkpoint of a training by `ranks` processes."""
    Path(config.out).mkdir(exist_ok=True)
    run_elastic(elastic, ranks, one_rank, config, one_step)
    return checkpoint.resolve(Path(config.out))


def batches_of(config: RunConfig) -> list[Any]:
    """What was trained on, in the order of the global batches."""
    lines = (Path(config.out) / "given.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines))


@pytest.fixture(scope="module")
def with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of videos and images."""
    root = tmp_path_factory.mktemp("images")
    world = DemoWorldConfig(frames=5, width=64, height=48)
    images = {"train_images": 4, "valid_images": 1}
    write_demo_data(DemoDataConfig(root / "raw", train_videos=2, valid_videos=1, world=world, **images))
    for dataset in ("mevis", "refcoco", "reason_seg"):
        split = read_dataset(dataset, root / "raw", "train")
        jobs = plan_jobs(split, root / "raw", root / "shards" / dataset / "train", 4)
        maker = ShardMaker()
        for job in jobs:
            maker.make(job)
        finish_split(split, jobs)
    return root


@pytest.mark.ranks
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["glus", "videolisa", "frozen, ZeRO-3", "frozen, ZeRO-2"])
def test_ranks_two_one_two_see_the_same_batches_and_losses(
    method: str, tiny_run: Callable[..., RunConfig], with_images: Path, tmp_path: Path
) -> None:
    settings = (f"steps={STEPS}", FACTORS, "model.lora.dropout=0.1")
    if method == "videolisa":
        settings += (*VIDEOLISA, *IMAGES, f"shards={with_images}/shards")
        settings += (f"model.tokenizer={with_images}/raw/tokenizer.model",)
    else:
        settings += ("engine.contrast_together=1",)
    if "frozen" in method:
        settings += (TABLE, "model.segmenter.train_image_encoder=false", f"engine.stage={method[-1]}")
    whole, changing = tiny_run(tmp_path / "whole", *settings), tiny_run(tmp_path / "changing", *settings)
    train_on(2, whole, tmp_path / "undisturbed")
    for step, ranks in enumerate((2, 1, 2), 1):
        newest = train_on(ranks, changing, tmp_path / f"start-{step}", one_step=step < 3)
        assert checkpoint.read_state(newest).ranks == ranks
        assert newest.name == checkpoint.name_of(step if step < 3 else STEPS)
    wanted = batches_of(whole)
    assert batches_of(changing) == wanted
    micro_batches = whole.global_batch_size // whole.engine.micro_batch_size
    assert [line[:2] for line in wanted] == [[step, place] for step in range(STEPS) for place in range(micro_batches)]
    names = [str(run_of_folder(Path(run.out))) for run in (whole, changing)]
    undisturbed, changed = (found.history["total"] for found in find_runs(whole.tracking, names))
    assert [step for step, _ in changed] == list(range(1, STEPS + 1))
    apart = max(abs(found / loss - 1) for (_, loss), (_, found) in zip(undisturbed, changed, strict=True))
    print(f"losses differ by {apart:.1e} of themselves at most")
    assert apart < 1e-4
    assert not list(Path(changing.out).glob("checkpoints/.*"))
