"""ZeRO-3 for real: two gloo ranks hold half of the model each, and train it as one rank would.

The two ranks are started once, as `glus train` starts them; each runs `rank_story`, and the tests read what it left.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glus.data_pipeline.loader import micro_batches
from glus.data_pipeline.reader import open_splits
from glus.data_pipeline.sampling import SamplePlan
from glus.launch.ranks import launch_settings
from glus.model.trainable import NEVER_TRAINED
from glus.training import checkpoint
from glus.training.build import build_for_training
from glus.training.config import RunConfig
from glus.training.distributed import Rank
from glus.training.engine import Engine
from glus.training.tracking import find_runs
from glus.training.train import LEAVES, accumulation_for, train

STEPS, RATE = 3, 1e-3
REFERENCE_TABLE = 'trainable=["*lora_*", "language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*"]'


@dataclass(frozen=True)
class Steps:
    """What a few steps left on one rank: elements held and whole, losses of each step, names of trained parameters."""

    held: int
    whole: int
    figures: tuple[dict[str, float], ...]
    trained: frozenset[str]


def take_steps(config: RunConfig, rank: Rank, weights: Path) -> Steps:
    """Train STEPS steps; rank 0 writes the whole weights before and after them below `weights`."""
    plan = SamplePlan(
        open_splits(Path(config.shards), list(config.sampling.mixture)),
        config.sampling,
        config.seed,
        config.global_batch_size,
    )
    built = build_for_training(config)
    trained = frozenset(name for name, parameter in built.model.named_parameters() if parameter.requires_grad)
    accumulation = accumulation_for(config, rank.ranks)
    with Engine.joined(rank):
        engine = Engine(built.model, config.engine, config.optimizer, accumulation, rank, LEAVES)
        _keep(engine, weights / "before")
        batches = micro_batches(
            plan, built.tokenizer, rank=rank.rank, ranks=rank.ranks, size=2, start=0, stop=STEPS, workers=0
        )
        figures = tuple(engine.step(batches, RATE) for _ in range(STEPS))
        _keep(engine, weights / "after")
        held, whole = engine.partitioned()
        engine.close()
    return Steps(held, whole, figures, trained)


def _keep(engine: Engine, path: Path) -> None:
    if state := engine.gather():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path)


def rank_story(everything: RunConfig, table: RunConfig, run: RunConfig, folder: Path) -> tuple[Steps, Steps]:
    """One of two ranks: a few steps with all parameters, then with a table; then a run, and the same run resumed."""
    torch.set_num_threads(1)
    rank = Rank.from_environment()
    steps = take_steps(everything, rank, folder / "everything"), take_steps(table, rank, folder / "table")
    last = train(run, rank)
    resumed = folder / "resumed"
    if rank.rank == 0:
        shutil.copytree(run.out, resumed)
        shutil.rmtree(resumed / "checkpoints" / last.name)
        (resumed / "checkpoints" / "latest").write_text(checkpoint.name_of(STEPS), encoding="utf-8")
    torch.distributed.barrier()
    train(replace(run, out=str(resumed)), rank)
    return steps


@dataclass(frozen=True)
class Story:
    """Where the two ranks wrote, and what each of them returned."""

    folder: Path
    config: RunConfig
    run: RunConfig
    ranks: tuple[tuple[Steps, Steps], ...]

    def weights(self, which: str, when: str) -> dict[str, Tensor]:
        return load_file(self.folder / which / when)


@pytest.fixture(scope="module")
def story(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    from torch.distributed.launcher.api import elastic_launch

    folder = tmp_path_factory.mktemp("two_ranks")
    everything = tiny_run(folder / "unused")
    run = tiny_run(folder / "run", f"steps={2 * STEPS}", f"checkpoint_every={STEPS}", "model.lora.dropout=0.1")
    table = tiny_run(folder / "unused", REFERENCE_TABLE, "model.segmenter.train_image_encoder=false")
    (folder / "elastic").mkdir()
    told = elastic_launch(launch_settings(folder / "elastic", 2), rank_story)(everything, table, run, folder)
    return Story(folder, everything, run, (told[0], told[1]))


def test_each_rank_holds_half_of_the_partitioned_parameters(story: Story) -> None:
    wholes = {steps.whole for steps, _ in story.ranks}
    held = [steps.held for steps, _ in story.ranks]
    assert len(wholes) == 1
    whole = wholes.pop()
    assert all(0.475 * whole <= each <= 0.525 * whole for each in held)
    # Each parameter is padded to a multiple of the number of ranks.
    parameters = story.weights("everything", "before")
    assert whole <= sum(held) <= whole + len(parameters)
    # Only parameters below `keep_whole_below` are held whole, a small part of the model.
    assert whole > 0.9 * sum(tensor.numel() for tensor in parameters.values())


def test_two_ranks_train_as_one_does(story: Story, tmp_path: Path) -> None:
    alone = take_steps(story.config, Rank(0, 0, 1), tmp_path)
    together = story.ranks[0][0]
    for one, two in zip(alone.figures, together.figures, strict=True):
        assert one.keys() == two.keys() >= {"cross_entropy", "mask_bce", "mask_dice", "contrastive", "gradient_norm"}
        assert two == pytest.approx(one, rel=1e-4)
    before, after = story.weights("everything", "before"), story.weights("everything", "after")
    own = load_file(tmp_path / "after")
    assert own.keys() == after.keys()
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    apart = torch.cat([(after[name] - own[name]).flatten() for name in after])
    assert moved.abs().max() > RATE
    assert apart.norm() < 0.01 * moved.norm()


def test_both_ranks_see_the_same_losses(story: Story) -> None:
    assert story.ranks[0][0].figures == story.ranks[1][0].figures


@pytest.mark.parametrize(("which", "place"), [("everything", 0), ("table", 1)])
def test_what_is_trained_changes_and_what_is_frozen_does_not(story: Story, which: str, place: int) -> None:
    trained = story.ranks[0][place].trained
    if which == "table":
        # Of the mask decoder, but run with the image encoder, here without gradient as in the reference.
        trained = {name for name in trained if ".conv_s" not in name}
    before, after = story.weights(which, "before"), story.weights(which, "after")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == trained


def test_the_star_leaves_out_what_no_loss_reaches(story: Story) -> None:
    names = set(story.weights("everything", "before"))
    never = {name for name in names if any(fnmatchcase(name, pattern) for pattern in NEVER_TRAINED)}
    assert never and not never & story.ranks[0][0].trained
    assert all(any(fnmatchcase(name, pattern) for name in names) for pattern in NEVER_TRAINED)


def test_a_resumed_run_ends_as_one_that_never_stopped(story: Story) -> None:
    name = checkpoint.name_of(2 * STEPS)
    whole = load_file(Path(story.run.out) / "checkpoints" / name / checkpoint.WEIGHTS)
    resumed = load_file(story.folder / "resumed" / "checkpoints" / name / checkpoint.WEIGHTS)
    assert whole.keys() == resumed.keys()
    assert all(torch.allclose(whole[name], resumed[name], rtol=0, atol=1e-6) for name in whole)


def test_a_resumed_run_goes_on_with_the_same_record(story: Story) -> None:
    [record] = find_runs(story.run.tracking)
    losses = record.history["total"]
    # Steps 4 to 6 were taken twice, by the whole run and by the resumed one.
    assert sorted(step for step, _ in losses) == [1, 2, 3, 4, 4, 5, 5, 6, 6]
    assert all(len({round(value, 5) for at, value in losses if at == step}) == 1 for step in range(1, 7))
