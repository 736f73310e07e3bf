"""What two ranks of a method go through in tests: steps to compare, steps of unlike batches, a run and its resume."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.run_config import EngineConfig, RunConfig
from tests.forked import run_elastic

from .test_zero3 import Steps, reference_rate, take_steps, train_and_resume

COMPARED, UNLIKE, HALF = 10, 5, 2
#: Changes of a run that the story resumes after HALF of its steps.
RESUMED = (f"steps={2 * HALF}", f"checkpoint_every={HALF}", "model.lora.dropout=0.1")


@dataclass(frozen=True)
class Story:
    """Where the two ranks wrote, and losses of each step and names of trained parameters of each rank."""

    folder: Path
    configs: dict[str, RunConfig]
    run: RunConfig
    ranks: tuple[dict[str, dict[str, list]], ...]

    def weights(self, which: str, when: str) -> dict[str, Tensor]:
        return load_file(self.folder / which / when)


def of_two_ranks(
    folder: Path, configs: dict[str, RunConfig], run: RunConfig, unlike: str, change: Callable[[Batch], Batch]
) -> Story:
    """Start the two ranks. `unlike` names the config whose batches rank 0 gets changed by `change`."""
    run_elastic(folder / "elastic", 2, _rank_story, configs, run, unlike, change, folder)
    ranks = tuple(json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(2))
    return Story(folder, configs, run, ranks)


def _rank_story(
    configs: dict[str, RunConfig], run: RunConfig, unlike: str, change: Callable[[Batch], Batch], folder: Path
) -> None:
    """One of the ranks."""
    torch.set_num_threads(1)
    rank = Rank.from_environment()
    steps = {
        name: take_steps(each, rank, folder / name, COMPARED, rate=reference_rate) for name, each in configs.items()
    }
    engine = replace(configs[unlike].engine, micro_batch_size=1)
    one = replace(configs[unlike], global_batch_size=2, engine=engine)
    changed = change if rank.rank == 0 else _as_it_is
    steps["unlike"] = take_steps(one, rank, folder / "unlike", UNLIKE, changed)
    train_and_resume(run, rank, HALF, folder / "resumed")
    kept = {name: {"figures": each.figures, "trained": sorted(each.trained)} for name, each in steps.items()}
    (folder / f"rank-{rank.rank}.json").write_text(json.dumps(kept), encoding="utf-8")


def _as_it_is(batch: Batch) -> Batch:
    return batch


def in_one_process(config: RunConfig, folder: Path) -> tuple[Steps, dict[str, Tensor]]:
    """The compared steps in one plain process, and the weights after them."""
    engine = EngineConfig(stage="plain", precision="fp32", micro_batch_size=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps = take_steps(replace(config, engine=engine), Rank(0, 0, 1), folder, COMPARED, rate=reference_rate)
    torch.set_num_threads(threads)
    return steps, load_file(folder / "after")


def assert_as_alone(story: Story, which: str, alone: Steps, own: Mapping[str, Tensor], losses: set[str]) -> None:
    """Losses, gradient norms and weights of the two ranks are those of one process, and the weights have moved."""
    together = story.ranks[0][which]["figures"]
    assert len(alone.figures) == len(together) == COMPARED
    apart_most = 0.0
    for one, two in zip(alone.figures, together, strict=True):
        assert one.keys() == two.keys() >= losses | {"gradient_norm"}
        assert two == pytest.approx(one, rel=1e-5)
        apart_most = max(apart_most, *(abs(two[name] / one[name] - 1) for name in one))
    before, after = story.weights(which, "before"), story.weights(which, "after")
    assert own.keys() == after.keys()
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    apart = torch.cat([(after[name] - own[name]).flatten() for name in after])
    print(f"{which}: losses {apart_most:.1e}, weights {apart.abs().max():.1e} apart, moved {moved.abs().max():.1e}")
    assert moved.abs().max() > 10 * 1e-5
    assert apart.norm() < 1e-5 * torch.cat([tensor.flatten() for tensor in own.values()]).norm()
    assert apart.abs().max() < 1e-5


def assert_unlike_go_on(story: Story) -> None:
    """Ranks whose batches differ in form took all steps, with the same finite losses."""
    first, second = (steps["unlike"]["figures"] for steps in story.ranks)
    assert len(first) == UNLIKE and first == second
    assert all(math.isfinite(value) for figures in first for value in figures.values())


def assert_resumed(story: Story, atol: float = 0.0) -> None:
    """The resumed run ends with the weights of one that never stopped, within `atol`."""
    name = checkpoint.name_of(2 * HALF)
    complete = load_file(Path(story.run.out) / "checkpoints" / name / checkpoint.WEIGHTS)
    resumed = load_file(story.folder / "resumed" / "checkpoints" / name / checkpoint.WEIGHTS)
    assert complete.keys() == resumed.keys()
    assert all(torch.allclose(complete[name], resumed[name], rtol=0, atol=atol) for name in complete)
