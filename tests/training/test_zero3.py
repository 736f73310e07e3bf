"""ZeRO-3 for real: two gloo ranks hold half of the model each, and train it as one rank would.

The two ranks are started once, as `glus train` starts them; each runs `rank_story`, and the tests read what it left.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.launch.planning.plan import Sizes, held_bytes
from glus.model.model_config import LossConfig
from glus.model.trainable import NEVER_TRAINED, build_empty, set_trainable
from glus.training.build import build_for_training
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.engines.choose import TrainingEngine, joined, make_contrast, make_engine
from glus.training.engines.deepspeed_engine import Engine
from glus.training.optim import learning_rate
from glus.training.run_config import EngineConfig, RunConfig
from glus.training.tracking.recorded_runs import find_runs
from glus.training.train import train
from tests.forked import run_elastic
from tests.model.tiny import SEG, VOCABULARY
from tests.model.tiny_videolisa import small_config

STEPS, RATE = 3, 1e-3
#: Steps that two ranks and one plain process are compared over, and steps of ranks whose batches are unlike.
COMPARED, UNLIKE = 20, 50
#: A hang ends here, with the stacks: the two ranks take a few seconds where the machine has nothing else to do.
pytestmark = [pytest.mark.timeout(900), pytest.mark.ranks]
#: LoRA alone on a language model whose lm_head is its embedding table: no input of a layer has a gradient of its own.
LORA_ALONE = (
    'trainable=["*lora_*"]',
    "model.language.tie_embeddings=true",
    "model.segmenter.train_image_encoder=false",
    "engine.gradient_checkpointing=true",
)
REFERENCE_TABLE = 'trainable=["*lora_*", "language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*"]'


@dataclass(frozen=True)
class Steps:
    """What a few steps left on one rank: elements held and whole, losses of each step, names of trained parameters,
    whether the model was without weights before the engine had it, and the bytes that the rank held at the end."""

    held: int
    whole: int
    figures: tuple[dict[str, float], ...]
    trained: frozenset[str]
    empty: bool
    bytes: dict[str, int]


def take_steps(
    config: RunConfig,
    rank: Rank,
    weights: Path,
    steps: int = STEPS,
    change: Callable[[Batch], Batch] = lambda batch: batch,
    rate: Callable[[int], float] = lambda step: RATE,
) -> Steps:
    """Train `steps` steps at the rates `rate(step)`; rank 0 writes the whole weights before and after to `weights`."""
    plan = SamplePlan(
        open_splits(Path(config.shards), list(config.sampling.mixture)),
        config.sampling,
        config.seed,
        config.global_batch_size,
    )
    built = build_for_training(config, with_weights=rank.rank == 0, late=True)
    empty = all(parameter.is_meta for parameter in built.model.parameters())
    trained = frozenset(name for name, parameter in built.model.named_parameters() if parameter.requires_grad)
    with joined(config, rank):
        engine = make_engine(config, built.model, rank, built.values)
        contrast = make_contrast(config, rank, [split.dataset for split in plan.splits])
        keep(engine, weights / "before")
        batches = Loader(
            plan,
            built.tokenizer,
            rank=rank.rank,
            ranks=rank.ranks,
            size=config.engine.micro_batch_size,
            start=0,
            stop=steps,
            workers=0,
        )
        figures = tuple(engine.step(map(change, batches), rate(step), contrast, step) for step in range(steps))
        keep(engine, weights / "after")
        held, whole = partitioned(engine) if isinstance(engine, Engine) else (0, 0)
        memory = engine_bytes(engine) if isinstance(engine, Engine) and config.engine.stage == 3 else {}
        engine.close()
    return Steps(held, whole, figures, trained, empty, memory)


def partitioned(engine: Engine) -> tuple[int, int]:
    """Elements of partitioned parameters: (held by this rank, in all)."""
    parameters: list[Any] = list(engine.module.parameters())
    parts = [each for each in parameters if hasattr(each, "ds_tensor") and not each.ds_persist]
    return sum(each.ds_tensor.numel() for each in parts), sum(each.ds_numel for each in parts)


def engine_bytes(engine: Engine) -> dict[str, int]:
    """Bytes of parameters, gradients and optimizer that this rank holds between steps (ZeRO-3)."""
    parameters: list[Any] = list(engine.module.parameters())
    held = [parameter.ds_tensor for parameter in parameters]
    held += [parameter.data for parameter in parameters if parameter.ds_persist]
    optimizer = engine._optimizer
    moments = [each for state in optimizer.optimizer.state.values() for each in state.values()]
    return {
        "parameters": sum(tensor.nbytes for tensor in held),
        "gradients": optimizer.grad_partitions_flat_buffer.nbytes,
        "optimizer": sum(each.nbytes for each in [*optimizer.fp32_partitioned_groups_flat, *moments]),
    }


def reference_rate(step: int) -> float:
    """The reference's: 3e-4 after 100 steps of warm-up, 3,000 in all."""
    return learning_rate(step, 3000, 3e-4, 100)


def keep(engine: TrainingEngine, path: Path) -> None:
    if state := engine.gather():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path)


def without_groups(batch: Batch) -> Batch:
    """No expression shares its objects with another."""
    return replace(batch, objects=torch.eye(len(batch.names), dtype=torch.bool))


def without_masks(batch: Batch) -> Batch:
    """No object is seen in any frame."""
    return replace(batch, masks=[MaskRuns.of(torch.zeros(mask.shape, dtype=torch.bool)) for mask in batch.masks])


def train_and_resume(run: RunConfig, rank: Rank, step: int, resumed: Path) -> None:
    """Train, then again from the checkpoint of `step` in a copy of the run's folder."""
    last = train(run, rank)
    if rank.rank == 0:
        shutil.copytree(run.out, resumed)
        shutil.rmtree(resumed / "checkpoints" / last.name)
        (resumed / "checkpoints" / "latest").write_text(checkpoint.name_of(step), encoding="utf-8")
    torch.distributed.barrier()
    train(replace(run, out=str(resumed)), rank)


def rank_story(configs: dict[str, RunConfig], run: RunConfig, folder: Path) -> None:
    """One of two ranks: a few steps of each config, unlike batches, then a run, and the same run resumed."""
    torch.set_num_threads(1)
    rank = Rank.from_environment()
    steps = {"table": take_steps(configs["table"], rank, folder / "table")}
    compared = {"everything": COMPARED, "without_contrast": COMPARED, "lora_alone": COMPARED}
    compared |= {"zero_2": STEPS, "offload": STEPS}
    for name, taken in compared.items():
        steps[name] = take_steps(configs[name], rank, folder / name, taken, rate=reference_rate)
    unlike = (without_groups, without_masks)[rank.rank]
    steps["unlike"] = take_steps(configs["unlike"], rank, folder / "unlike", UNLIKE, unlike)
    train_and_resume(run, rank, STEPS, folder / "resumed")
    # By a file: what a rank returns goes through a pipe, which holds little until it is read.
    told = {name: asdict(each) | {"trained": sorted(each.trained)} for name, each in steps.items()}
    (folder / f"rank-{rank.rank}.json").write_text(json.dumps(told), encoding="utf-8")


def told_by(rank: int, folder: Path) -> dict[str, Steps]:
    """What a rank left."""
    told = json.loads((folder / f"rank-{rank}.json").read_text(encoding="utf-8"))
    changed = {"figures": tuple, "trained": frozenset}
    return {
        name: Steps(**{key: changed[key](value) if key in changed else value for key, value in each.items()})
        for name, each in told.items()
    }


@dataclass(frozen=True)
class Story:
    """Where the two ranks wrote, and what each of them returned."""

    folder: Path
    configs: dict[str, RunConfig]
    run: RunConfig
    ranks: tuple[dict[str, Steps], ...]

    def weights(self, which: str, when: str) -> dict[str, Tensor]:
        return load_file(self.folder / which / when)


@pytest.fixture(scope="module")
def story(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("two_ranks")
    # The two ranks recompute activations of Llama and of SAM 2's image encoder; the one that is alone keeps them.
    everything = tiny_run(folder / "unused", "engine.gradient_checkpointing=true")
    configs = {
        "everything": everything,
        "without_contrast": replace(everything, model=replace(everything.model, loss=LossConfig(contrastive=0.0))),
        "unlike": replace(everything, global_batch_size=2, engine=replace(everything.engine, micro_batch_size=1)),
        "zero_2": replace(everything, engine=replace(everything.engine, stage=2)),
        "lora_alone": tiny_run(folder / "unused", *LORA_ALONE),
        "offload": replace(everything, engine=replace(everything.engine, offload="all")),
        "table": tiny_run(folder / "unused", REFERENCE_TABLE, "model.segmenter.train_image_encoder=false"),
    }
    run = tiny_run(folder / "run", f"steps={2 * STEPS}", f"checkpoint_every={STEPS}", "model.lora.dropout=0.1")
    run_elastic(folder / "elastic", 2, rank_story, configs, run, folder)
    return Story(folder, configs, run, (told_by(0, folder), told_by(1, folder)))


def test_each_rank_holds_half_of_the_partitioned_parameters(story: Story) -> None:
    wholes = {steps["everything"].whole for steps in story.ranks}
    held = [steps["everything"].held for steps in story.ranks]
    assert len(wholes) == 1
    whole = wholes.pop()
    assert all(0.475 * whole <= each <= 0.525 * whole for each in held)
    # Each parameter is padded to a multiple of the number of ranks.
    parameters = story.weights("everything", "before")
    assert whole <= sum(held) <= whole + len(parameters)
    # Only parameters below `keep_whole_below` are held whole, a small part of the model.
    assert whole > 0.9 * sum(tensor.numel() for tensor in parameters.values())


def test_rank_0_alone_reads_weights_and_the_others_get_their_part(story: Story) -> None:
    assert [steps["everything"].empty for steps in story.ranks] == [False, True]


@pytest.mark.parametrize("which", ["everything", "without_contrast", "lora_alone"])
def test_two_ranks_train_as_one_plain_process_does(story: Story, which: str, tmp_path: Path) -> None:
    """The ranks read the prompts of a video in one packed row; the one process reads each from its first token."""
    # One process takes the two micro-batches at once that the ranks take side by side.
    engine = EngineConfig(stage="plain", precision="fp32", micro_batch_size=2, contrast_together=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = replace(story.configs[which].model, share_video_tokens=False)
    config = replace(story.configs[which], engine=engine, model=model)
    alone = take_steps(config, Rank(0, 0, 1), tmp_path, COMPARED, rate=reference_rate)
    torch.set_num_threads(threads)
    together = story.ranks[0][which]
    assert len(alone.figures) == len(together.figures) == COMPARED
    for one, two in zip(alone.figures, together.figures, strict=True):
        assert one.keys() == two.keys() >= {"cross_entropy", "mask_bce", "mask_dice", "gradient_norm"}
        assert ("contrastive" in one) == (which != "without_contrast")
        assert two == pytest.approx(one, rel=1e-5)
    before, after = story.weights(which, "before"), story.weights(which, "after")
    own = load_file(tmp_path / "after")
    assert own.keys() == after.keys()
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    apart = torch.cat([(after[name] - own[name]).flatten() for name in after])
    assert moved.abs().max() > 20 * 1e-5
    assert apart.norm() < 1e-5 * torch.cat([tensor.flatten() for tensor in own.values()]).norm()
    # Adam turns rounding into whole steps where a gradient is nothing but rounding, as that of the biases of keys is.
    assert apart.abs().max() < 1e-5


@pytest.mark.parametrize("which", ["zero_2", "offload"])
def test_zero_2_and_offloading_to_the_cpu_take_the_steps_of_zero_3(story: Story, which: str) -> None:
    wanted = story.ranks[0]["everything"].figures[:STEPS]
    assert len(story.ranks[0][which].figures) == STEPS
    for steps in story.ranks:
        for found, figures in zip(steps[which].figures, wanted, strict=True):
            assert found == pytest.approx(figures, rel=1e-5)
    # ZeRO-2 partitions no parameters; offloaded, they are partitioned as they are otherwise.
    assert story.ranks[0][which].whole == (0 if which == "zero_2" else story.ranks[0]["everything"].whole)


@pytest.mark.parametrize("which", ["everything", "table"])
def test_glus_plan_tells_the_bytes_that_a_rank_holds(story: Story, which: str) -> None:
    config = story.configs[which]
    tokenizer = Tokenizer(Path(config.model.tokenizer))
    empty = build_empty(config.model, tokenizer.vocab_size, tokenizer.seg_id)
    set_trainable(empty, config.trainable)
    planned = held_bytes(config, Sizes.of(empty), ranks=2)
    for steps in story.ranks:
        assert steps[which].bytes == pytest.approx(planned, rel=0.1)


def test_ranks_with_unlike_batches_go_on_together(story: Story) -> None:
    first, second = (steps["unlike"].figures for steps in story.ranks)
    assert len(first) == UNLIKE and first == second
    assert all(math.isfinite(value) for figures in first for value in figures.values())
    # Rank 0 has no groups: the partners that there are, are of rank 1.
    assert 0 < sum(figures["contrastive_share"] for figures in first) / UNLIKE <= 0.75


def test_both_ranks_see_the_same_losses(story: Story) -> None:
    assert story.ranks[0]["everything"].figures == story.ranks[1]["everything"].figures


@pytest.mark.parametrize("which", ["everything", "table"])
def test_what_is_trained_changes_and_what_is_frozen_does_not(story: Story, which: str) -> None:
    trained = story.ranks[0][which].trained
    if which == "table":
        # Of the mask decoder, but run with the image encoder, here without gradient as in the reference.
        trained = {name for name in trained if ".conv_s" not in name}
    before, after = story.weights(which, "before"), story.weights(which, "after")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trained
    # A bias of keys moves all scores of a query alike, which softmax takes out: its gradient is nothing but rounding.
    assert all(name.endswith("k_proj.bias") for name in trained - changed)


def test_the_star_leaves_out_what_no_loss_reaches(story: Story) -> None:
    names = set(story.weights("everything", "before"))
    never = {name for name in names if any(fnmatchcase(name, pattern) for pattern in NEVER_TRAINED)}
    assert never and not never & story.ranks[0]["everything"].trained
    with_sam1 = {name for name, _ in build_empty(small_config(), VOCABULARY, SEG).named_parameters()}
    assert [each for each in NEVER_TRAINED if not any(fnmatchcase(name, each) for name in names | with_sam1)] == []


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


def test_lora_alone_can_be_trained(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    """Nothing before Llama is trained then: its first layer is given no input with a gradient."""
    path = train(tiny_run(tmp_path / "run", 'trainable=["*lora_*"]', "steps=1"), Rank(0, 0, 1))
    weights = load_file(path / checkpoint.WEIGHTS)
    drawn_as_zero = [tensor for name, tensor in weights.items() if "lora_B" in name]
    assert drawn_as_zero and all(tensor.any() for tensor in drawn_as_zero)
