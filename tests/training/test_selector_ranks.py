"""The key frame selector under ZeRO-3: two gloo ranks train as one process does, with unlike batches, and resume."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.launch.ranks.ranks import launch_settings
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.run_config import EngineConfig, RunConfig
from tests.tiny_selector_run import OWN_TABLE, with_labels

from .test_zero3 import reference_rate, take_steps, train_and_resume

COMPARED, UNLIKE, HALF = 10, 5, 2
pytestmark = [pytest.mark.timeout(900), pytest.mark.ranks]


def one_expression(batch: Batch) -> Batch:
    """The first expression alone."""
    names = ("video_of", "ids", "attention", "answer", "names", "split", "video_key", "expression", "objects", "score")
    return replace(batch, **{name: getattr(batch, name)[:1] for name in names})


def rank_story(configs: dict[str, RunConfig], run: RunConfig, folder: Path) -> None:
    """One of two ranks: compared steps, steps of unlike batches, then a run, and the same run resumed."""
    torch.set_num_threads(1)
    rank = Rank.from_environment()
    steps = {
        name: take_steps(each, rank, folder / name, COMPARED, rate=reference_rate) for name, each in configs.items()
    }

    def change(batch: Batch) -> Batch:
        return one_expression(batch) if rank.rank == 0 else batch

    one = replace(configs["table"], global_batch_size=2, engine=replace(configs["table"].engine, micro_batch_size=1))
    steps["unlike"] = take_steps(one, rank, folder / "unlike", UNLIKE, change)
    train_and_resume(run, rank, HALF, folder / "resumed")
    kept = {name: {"figures": each.figures, "trained": sorted(each.trained)} for name, each in steps.items()}
    (folder / f"rank-{rank.rank}.json").write_text(json.dumps(kept), encoding="utf-8")


@dataclass(frozen=True)
class Story:
    """Where the two ranks wrote, and losses of each step and names of trained parameters of each rank."""

    folder: Path
    configs: dict[str, RunConfig]
    run: RunConfig
    ranks: tuple[dict[str, dict[str, list]], ...]

    def weights(self, which: str, when: str) -> dict[str, Tensor]:
        return load_file(self.folder / which / when)


@pytest.fixture(scope="module")
def story(tiny_demo: Path, tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    from torch.distributed.launcher.api import elastic_launch

    folder = tmp_path_factory.mktemp("selector_ranks")
    selector = with_labels(tiny_demo, folder / "scores")
    everything = tiny_run(folder / "unused", *selector, "engine.gradient_checkpointing=true")
    configs = {"everything": everything, "table": tiny_run(folder / "unused", *selector, OWN_TABLE)}
    steps = (f"steps={2 * HALF}", f"checkpoint_every={HALF}", "model.lora.dropout=0.1")
    run = tiny_run(folder / "run", *selector, OWN_TABLE, *steps)
    (folder / "elastic").mkdir()
    elastic_launch(launch_settings(folder / "elastic", 2), rank_story)(configs, run, folder)
    ranks = tuple(json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(2))
    return Story(folder, configs, run, ranks)


@pytest.mark.parametrize("which", ["everything", "table"])
def test_two_ranks_train_as_one_plain_process_does(story: Story, which: str, tmp_path: Path) -> None:
    engine = EngineConfig(stage="plain", precision="fp32", micro_batch_size=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = take_steps(
        replace(story.configs[which], engine=engine), Rank(0, 0, 1), tmp_path, COMPARED, rate=reference_rate
    )
    torch.set_num_threads(threads)
    together = story.ranks[0][which]["figures"]
    assert len(alone.figures) == len(together) == COMPARED
    apart_most = 0.0
    for one, two in zip(alone.figures, together, strict=True):
        assert one.keys() == two.keys() >= {"cross_entropy", "score_l1", "gradient_norm"}
        assert two == pytest.approx(one, rel=1e-5)
        apart_most = max(apart_most, *(abs(two[name] / one[name] - 1) for name in one))
    before, after, own = story.weights(which, "before"), story.weights(which, "after"), load_file(tmp_path / "after")
    assert own.keys() == after.keys()
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    apart = torch.cat([(after[name] - own[name]).flatten() for name in after])
    print(f"{which}: losses {apart_most:.1e}, weights {apart.abs().max():.1e} apart, moved {moved.abs().max():.1e}")
    assert moved.abs().max() > 10 * 1e-5
    assert apart.norm() < 1e-5 * torch.cat([tensor.flatten() for tensor in own.values()]).norm()
    assert apart.abs().max() < 1e-5


def test_the_methods_own_table_is_trained_and_nothing_else(story: Story) -> None:
    trained = set(story.ranks[0]["table"]["trained"])
    before, after = story.weights("table", "before"), story.weights("table", "after")
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained
    wanted = ("lora_", "embed_tokens", "lm_head", "text_hidden_fcs", "score_head")
    assert all(any(part in name for part in wanted) for name in trained)
    assert all(any(part in name for name in trained) for part in wanted)


def test_ranks_with_unlike_batches_go_on_together(story: Story) -> None:
    first, second = (steps["unlike"]["figures"] for steps in story.ranks)
    assert len(first) == UNLIKE and first == second
    assert all(math.isfinite(value) for figures in first for value in figures.values())


def test_a_resumed_run_ends_with_the_bits_of_one_that_never_stopped(story: Story) -> None:
    name = checkpoint.name_of(2 * HALF)
    whole = load_file(Path(story.run.out) / "checkpoints" / name / checkpoint.WEIGHTS)
    resumed = load_file(story.folder / "resumed" / "checkpoints" / name / checkpoint.WEIGHTS)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
