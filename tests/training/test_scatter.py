"""A model that is scattered from rank 0: tied parameters, unlike models, and sums of gradients in float32.

Two ranks over gloo, started once; each runs `story` and writes what it found.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from glus.common.errors import TrainingError
from glus.training.build import build_for_training
from glus.training.distributed import STORE, Rank
from glus.training.engines.deepspeed_engine import Engine
from glus.training.engines.scatter import check_same_model
from glus.training.run_config import EngineConfig, OptimizerConfig, RunConfig
from tests.forked import FORKED
from tests.training.test_zero3 import take_steps

STEPS = 2
STAGES = (3, 2, 0)
#: Micro-batches of a step, and their gradients: one of 1, then small ones that bfloat16 would lose beside it.
MICRO_BATCHES, SMALL = 16, 2.0**-9
TIED = "model.language.tie_embeddings=true"
pytestmark = [pytest.mark.timeout(900), pytest.mark.ranks]


@dataclass
class Output:
    """What `accumulate` reads."""

    losses: dict[str, Tensor]
    loss: Tensor
    seg_states: Tensor


class Sum(nn.Module):
    """The gradient of `always` is the batch. `seldom` has one from the first micro-batch of a step alone; with
    `all_read` the others read it, which ZeRO-3 wants."""

    def __init__(self, all_read: bool) -> None:
        super().__init__()
        self.all_read = all_read
        self.always, self.seldom = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8))

    def forward(self, batch: Tensor) -> Tensor:
        loss = (self.always * batch).sum()
        if float(batch[0]) == 1:
            return loss + self.seldom.sum()
        return loss + 0 * self.seldom.sum() if self.all_read else loss


class Numbers(nn.Module):
    """A model around it: ZeRO-3's hooks see the tensors that a module returns, not the fields of Output."""

    def __init__(self, all_read: bool) -> None:
        super().__init__()
        self.sum = Sum(all_read)

    def forward(self, batch: Tensor) -> Output:
        loss = self.sum(batch).float()
        return Output({"all": loss}, loss, torch.zeros(1))


def gradient_norm(stage: Any, offload: Any, rank: Rank) -> float:
    """L2 norm of `always` and `seldom` after a step of MICRO_BATCHES in bf16; the second step's."""
    config = EngineConfig(stage=stage, precision="bf16", micro_batch_size=1, keep_whole_below=0, offload=offload)

    def batches() -> Iterator[Tensor]:
        for value in [1.0] + [SMALL] * (MICRO_BATCHES - 1):
            yield torch.full((8,), value, dtype=torch.bfloat16)

    with Engine.joined(rank):
        engine = Engine(Numbers(stage == 3), config, OptimizerConfig(clip=0.0), MICRO_BATCHES, rank)
        norms = [engine.step(batches(), 1e-3)["gradient_norm"] for _ in range(2)]
        engine.close()
    return norms[1]


def story(number: int, tied: RunConfig, other: RunConfig, folder: Path) -> None:
    """One of two ranks."""
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, STORE: folder / "store"}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    rank = Rank(number, number, 2)
    found: dict[str, Any] = {"norms": {}, "figures": {}}
    for stage in STAGES:
        config = replace(tied, engine=replace(tied.engine, stage=stage))
        found["figures"][stage] = take_steps(config, rank, folder / str(stage), STEPS).figures
    for stage, offload in ((0, "none"), (1, "none"), (1, "optimizer"), (2, "none"), (3, "none")):
        found["norms"][f"{stage} {offload}"] = gradient_norm(stage, offload, rank)
    began = time.monotonic()
    with Engine.joined(rank):
        check_same_model(build_for_training(tied, with_weights=False).model, rank)
        try:
            check_same_model(build_for_training(other if number else tied, with_weights=False).model, rank)
        except TrainingError as error:
            found["refused"] = str(error)
    found["seconds"] = time.monotonic() - began
    (folder / f"rank-{number}.json").write_text(json.dumps(found), encoding="utf-8")


@dataclass(frozen=True)
class Story:
    folder: Path
    tied: RunConfig
    ranks: list[dict[str, Any]]


@pytest.fixture(scope="module")
def told(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("scattered")
    tied, other = tiny_run(folder / "unused", TIED), tiny_run(folder / "unused", TIED, "model.lora.rank=2")
    ranks = [FORKED.Process(target=story, args=(number, tied, other, folder)) for number in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(800)
        rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    texts = [(folder / f"rank-{number}.json").read_text(encoding="utf-8") for number in range(2)]
    return Story(folder, tied, [json.loads(text) for text in texts])


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_train_tied_embeddings_as_one_process_does(told: Story, stage: int, tmp_path: Path) -> None:
    engine = EngineConfig(stage="plain", precision="fp32", micro_batch_size=2, contrast_together=2)
    alone = take_steps(replace(told.tied, engine=engine), Rank(0, 0, 1), tmp_path, STEPS)
    for rank in told.ranks:
        for one, two in zip(alone.figures, rank["figures"][str(stage)], strict=True):
            # Without ZeRO, in fp32, DeepSpeed does not keep the norm.
            kept = {name: value for name, value in one.items() if stage or name != "gradient_norm"}
            assert two == pytest.approx(kept, rel=1e-5)
    own, together = load_file(tmp_path / "after"), load_file(told.folder / str(stage) / "after")
    assert own.keys() == together.keys()
    assert not any("lm_head" in name for name in own) and any("embed_tokens" in name for name in own)
    assert all(torch.allclose(own[name], together[name], rtol=0, atol=1e-5) for name in own)


@pytest.mark.parametrize("which", ["0 none", "1 none", "1 optimizer", "2 none", "3 none"])
def test_small_gradients_in_bf16_are_summed_in_float32(told: Story, which: str) -> None:
    right = ((8 * (1 + (MICRO_BATCHES - 1) * SMALL) ** 2 + 8) ** 0.5) / MICRO_BATCHES
    lost = (16**0.5) / MICRO_BATCHES
    assert abs(lost / right - 1) > 0.01
    for rank in told.ranks:
        # The sum is rounded to bfloat16 once where it goes to the other ranks as such.
        assert rank["norms"][which] == pytest.approx(right, rel=2**-9)


def test_unlike_models_are_refused_by_all_ranks_before_anything_is_sent(told: Story) -> None:
    first, second = (rank["refused"] for rank in told.ranks)
    assert first == second
    assert first.startswith("rank 1 built another model than rank 0: ") and "lora_A" in first
    assert "[2, 32] where rank 0 has" in first and "[4, 32]" in first
    assert all(rank["seconds"] < 300 for rank in told.ranks)
