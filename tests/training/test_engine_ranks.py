"""Settings of the engine under ZeRO-3: two gloo ranks take the same steps with hpZ and with compiled parts.

And they name the trained parameters that no loss reaches.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glus.common.errors import TrainingError
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.model.compiling import compile_parts
from glus.training import build
from glus.training.distributed import Rank
from glus.training.engines.choose import check_shares, joined, make_engine
from glus.training.run_config import RunConfig
from glus.training.unreached import Reached
from tests.forked import run_elastic

from .test_unreached import CONVS
from .test_zero3 import STEPS, keep, take_steps

pytestmark = [pytest.mark.timeout(1800), pytest.mark.ranks]

#: conv_s0 and conv_s1 of the mask decoder get no gradient, and no_mem_embed does.
TABLE = (
    'trainable=["language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*"]',
    "model.segmenter.train_image_encoder=false",
    "model.segmenter.train_memory=false",
    "model.loss.contrastive=0",
)


def _story(configs: dict[str, RunConfig], folder: Path) -> None:
    """One of the ranks."""
    torch.set_num_threads(1)
    rank = Rank.from_environment()
    # Traced as inductor traces, without minutes of a C++ compiler.
    build.compile_parts = partial(compile_parts, backend="aot_eager")
    steps = {name: take_steps(configs[name], rank, folder / name) for name in ("as_it_is", "hpz", "compiled")}
    kept: dict[str, Any] = {name: asdict(each) | {"trained": None} for name, each in steps.items()}
    kept["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for name in ("table", "decayed"):
        kept[name] = _unreached(configs[name], rank, folder / name)
    (folder / f"rank-{rank.rank}.json").write_text(json.dumps(kept), encoding="utf-8")


def _unreached(config: RunConfig, rank: Rank, weights: Path) -> list[str]:
    """Names of trained parameters that two steps' losses do not reach; rank 0 writes the weights before and after."""
    splits = open_splits(Path(config.shards), list(config.sampling.mixture))
    plan = SamplePlan(splits, config.sampling, config.seed, config.global_batch_size)
    built = build.build_for_training(config, with_weights=rank.rank == 0)
    with joined(config, rank):
        engine = make_engine(config, built.model, rank)
        keep(engine, weights / "before")
        reached = Reached(engine.module)
        size = config.engine.micro_batch_size
        batches = Loader(plan, built.tokenizer, rank=rank.rank, ranks=2, size=size, start=0, stop=2, workers=0)
        for _ in range(2):
            engine.step(batches, 1e-2)
        found = reached.unreached(rank)
        keep(engine, weights / "after")
        engine.close()
    return found


@dataclass(frozen=True)
class Story:
    """Where the two ranks wrote, and what each of them left."""

    folder: Path
    ranks: tuple[dict[str, Any], ...]


@pytest.fixture(scope="module")
def story(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("engine_ranks")
    unused, again = folder / "unused", "engine.gradient_checkpointing=true"
    configs = {
        "as_it_is": tiny_run(unused, again),
        "hpz": tiny_run(unused, again, "engine.hpz_partition_size=2"),
        "compiled": tiny_run(unused, again, "engine.compile=all"),
        "table": tiny_run(unused, *TABLE),
        "decayed": tiny_run(unused, *TABLE, "optimizer.weight_decay=0.1"),
    }
    run_elastic(folder / "elastic", 2, _story, configs, folder)
    return Story(folder, tuple(json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(2)))


@pytest.mark.parametrize("which", ["hpz", "compiled"])
def test_losses_and_weights_are_those_without_the_setting(story: Story, which: str) -> None:
    for rank in story.ranks:
        assert len(rank[which]["figures"]) == STEPS
        for found, wanted in zip(rank[which]["figures"], rank["as_it_is"]["figures"], strict=True):
            assert found == pytest.approx(wanted, rel=1e-5)
    found, wanted = (load_file(story.folder / each / "after") for each in (which, "as_it_is"))
    apart = torch.cat([(found[name] - wanted[name]).flatten() for name in wanted])
    assert apart.norm() < 1e-5 * torch.cat([tensor.flatten() for tensor in wanted.values()]).norm()


def test_parts_were_compiled_and_partitioned_as_ever(story: Story) -> None:
    for rank in story.ranks:
        assert rank["graphs"] > 0
        assert rank["compiled"]["held"] == rank["hpz"]["held"] == rank["as_it_is"]["held"] > 0


def test_what_no_loss_reaches_is_named_by_both_ranks(story: Story) -> None:
    assert [rank["table"] for rank in story.ranks] == [CONVS, CONVS]


def test_without_a_gradient_nothing_changes_but_by_weight_decay(story: Story) -> None:
    for which, stays in (("table", True), ("decayed", False)):
        before, after = (load_file(story.folder / which / when) for when in ("before", "after"))
        assert all(torch.equal(before[name], after[name]) == stays for name in CONVS if name.endswith("weight"))


def test_hpz_divides_the_ranks_of_a_machine(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tiny_run(tmp_path / "run", "engine.hpz_partition_size=2", "global_batch_size=24")
    check_shares(config, 4, 2)
    for ranks, here, what in ((3, 0, "3 ranks"), (6, 3, "3 ranks of a machine")):
        with pytest.raises(TrainingError, match=f"engine.hpz_partition_size=2 does not divide the {what}"):
            check_shares(config, ranks, here)
    for changes in (("engine.stage=2",), ("engine.offload=all",)):
        with pytest.raises(TrainingError, match="hpZ copies what ZeRO-3 partitions"):
            tiny_run(tmp_path / "run", "engine.hpz_partition_size=2", *changes)
    with pytest.raises(TrainingError, match="engine.hpz_partition_size=0: it must be at least 1"):
        tiny_run(tmp_path / "run", "engine.hpz_partition_size=0")
