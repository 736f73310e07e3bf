"""VideoLISA under ZeRO-3: two gloo ranks with Phi-3 and SAM 1 train as one process does, go on, and resume."""

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
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.launch.ranks.ranks import launch_settings
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.run_config import EngineConfig, RunConfig
from tests.tiny_videolisa_run import VIDEOLISA

from .test_zero3 import Steps, reference_rate, take_steps, train_and_resume

COMPARED, UNLIKE, HALF = 10, 5, 2
pytestmark = [pytest.mark.timeout(900), pytest.mark.ranks]


def one_without_seg(batch: Batch, seg_id: int) -> Batch:
    """One expression of one video, and no [SEG] in its answer, as of a picture without a target."""
    [masks] = batch.masks
    first = {name: getattr(batch, name)[:1] for name in ("video_of", "attention", "answer", "names", "split")}
    first |= {name: getattr(batch, name)[:1] for name in ("video_key", "expression", "objects")}
    ids = torch.where(batch.ids == seg_id, 5, batch.ids)[:1]
    return replace(batch, ids=ids, masks=[MaskRuns.of(masks.painted()[:1])], **first)


def rank_story(configs: dict[str, RunConfig], run: RunConfig, seg_id: int, folder: Path) -> None:
    """One of two ranks: compared steps, steps of unlike batches, then a run, and the same run resumed."""
    torch.set_num_threads(1)
    rank = Rank.from_environment()
    steps = {
        name: take_steps(each, rank, folder / name, COMPARED, rate=reference_rate) for name, each in configs.items()
    }

    def change(batch: Batch) -> Batch:
        return one_without_seg(batch, seg_id) if rank.rank == 0 else batch

    one = replace(configs["shared"], global_batch_size=2, engine=replace(configs["shared"].engine, micro_batch_size=1))
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
def story(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    from torch.distributed.launcher.api import elastic_launch

    from glus.data_pipeline.batches.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("videolisa_ranks")
    shared = tiny_run(folder / "unused", *VIDEOLISA, "engine.gradient_checkpointing=true")
    prompt_by_prompt = replace(shared, model=replace(shared.model, share_video_tokens=False))
    configs = {"shared": shared, "prompt_by_prompt": prompt_by_prompt}
    run = tiny_run(
        folder / "run", *VIDEOLISA, f"steps={2 * HALF}", f"checkpoint_every={HALF}", "model.lora.dropout=0.1"
    )
    seg_id = Tokenizer(Path(run.model.tokenizer)).seg_id
    (folder / "elastic").mkdir()
    elastic_launch(launch_settings(folder / "elastic", 2), rank_story)(configs, run, seg_id, folder)
    ranks = tuple(json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(2))
    return Story(folder, configs, run, ranks)


@pytest.fixture(scope="module")
def alone(story: Story, tmp_path_factory: pytest.TempPathFactory) -> tuple[Steps, dict[str, Tensor]]:
    """The compared steps in one process, each prompt read from its first token, activations kept."""
    folder = tmp_path_factory.mktemp("alone")
    engine = EngineConfig(stage="plain", precision="fp32", micro_batch_size=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = replace(story.configs["prompt_by_prompt"], engine=engine)
    steps = take_steps(config, Rank(0, 0, 1), folder, COMPARED, rate=reference_rate)
    torch.set_num_threads(threads)
    return steps, load_file(folder / "after")


@pytest.mark.parametrize("which", ["shared", "prompt_by_prompt"])
def test_two_ranks_train_as_one_plain_process_does(story, alone, which):
    """With the shared prefix too: it is switched off in the one process."""
    steps, own = alone
    together = story.ranks[0][which]["figures"]
    assert len(steps.figures) == len(together) == COMPARED
    apart_most = 0.0
    for one, two in zip(steps.figures, together, strict=True):
        assert one.keys() == two.keys() >= {"cross_entropy", "mask_bce", "mask_dice", "gradient_norm"}
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


def test_the_compared_batches_have_a_beginning_to_share(tiny_run, tmp_path):
    config = tiny_run(tmp_path / "run", *VIDEOLISA)
    splits = open_splits(Path(config.shards), list(config.sampling.mixture))
    plan = SamplePlan(splits, config.sampling, config.seed, config.global_batch_size)
    slots = [slot for step in range(COMPARED) for slot in plan.global_batch(step)]
    assert sum(len(slot.expressions) > 1 for slot in slots) > len(slots) / 2


def test_what_is_trained_changes_and_the_projector_does_not(story):
    trained = set(story.ranks[0]["shared"]["trained"])
    before, after = story.weights("shared", "before"), story.weights("shared", "after")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trained and not any("mm_projector" in name for name in changed)
    # A bias of keys moves all scores of a query alike, which softmax takes out.
    assert all(name.endswith("k_proj.bias") for name in trained - changed)
    assert any("qkv_proj.lora_B" in name for name in changed)


def test_ranks_of_which_one_has_no_seg_go_on_together(story):
    """It reads one prompt as it is, the other rank a packed row of four."""
    first, second = (steps["unlike"]["figures"] for steps in story.ranks)
    assert len(first) == UNLIKE and first == second
    assert all(math.isfinite(value) for figures in first for value in figures.values())


def test_a_resumed_run_ends_as_one_that_never_stopped(story):
    name = checkpoint.name_of(2 * HALF)
    complete = load_file(Path(story.run.out) / "checkpoints" / name / checkpoint.WEIGHTS)
    resumed = load_file(story.folder / "resumed" / "checkpoints" / name / checkpoint.WEIGHTS)
    assert complete.keys() == resumed.keys()
    assert all(torch.allclose(complete[name], resumed[name], rtol=0, atol=1e-6) for name in complete)
