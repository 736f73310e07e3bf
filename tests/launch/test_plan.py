"""`glus plan`: what a run would take, against what it takes here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.launch import cli
from glus.launch.config.configuration import load_config
from glus.launch.planning.plan import PlanConfig, Sizes, group_bytes, held_bytes, load_of, wire_bytes
from glus.model.language.prompt_rows import PromptRows
from glus.model.trainable import build_empty, set_trainable
from glus.training.build import build_for_training, build_to_count
from glus.training.metrics.cost import Load, step_cost
from glus.training.run_config import RunConfig

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"


def kept_bytes(model: torch.nn.Module, batch: object) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters left out."""
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(batch)
    return sum(size for _, size in kept.values())


def test_activations_are_told_within_a_tenth(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tiny_run(tmp_path / "run")
    splits = open_splits(Path(config.shards), list(config.sampling.mixture))
    built = build_for_training(config)
    plan = SamplePlan(splits, config.sampling, config.seed, config.global_batch_size)
    batch = next(Loader(plan, built.tokenizer, rank=0, ranks=1, size=2, start=0, stop=1))
    measured = kept_bytes(built.model, batch)
    shown = batch.context.shape[1] + batch.query.shape[1]
    image = config.model.vision.tokens_per_frame
    tokens = PromptRows.of(batch.ids, batch.attention, shown, image, batch.video_of, share=True).ids.numel()
    load = Load(2, shown, batch.query.shape[1], len(batch.names), tokens, batch.masks[0].shape[-2:].numel())
    empty = build_empty(config.model, built.tokenizer.vocab_size, built.tokenizer.seg_id)
    set_trainable(empty, config.trainable)
    assert sum(step_cost(empty).saved_bytes(load).values()) == pytest.approx(measured, rel=0.1)


def test_a_frozen_language_model_takes_two_passes_and_a_trained_one_three(
    tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny_run(tmp_path / "run", "model.lora.rank=0")
    times = {}
    for patterns in (("*",), ("language.text_hidden_fcs.*",)):
        empty = build_empty(config.model, 300, 299)
        set_trainable(empty, patterns)
        [times[patterns]] = [part.times for part in step_cost(empty).parts if part.name == "Llama"]
    assert list(times.values()) == [3.0, 2.0]


def test_flash_attention_is_planned_and_counted_without_it(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """flash-attn is not installed here, and does not run on the meta device: torch's attention takes as many FLOP.

    It reads each prompt from its first token.
    """
    told = []
    for change in ("model.share_video_tokens=false", "model.language.attention=flash_attention_2"):
        words = ["plan", str(CONFIGS / "glus_s.yaml"), f"changes=[{change}]"]
        assert cli.main(words) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    costs = []
    for attention in ("sdpa", "flash_attention_2"):
        empty = build_empty(tiny_run(tmp_path / "run").model, 300, 299)
        empty.language.llama.config._attn_implementation = attention
        costs.append(step_cost(empty))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("lora", [0, 4])
def test_tied_embeddings_are_counted_once(lora: int, tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", "model.language.tie_embeddings=true", f"model.lora.rank={lora}")
    built = build_for_training(run)
    size = built.tokenizer.vocab_size
    counts = {
        sum(parameter.numel() for parameter in model.parameters())
        for model in (
            built.model,
            build_for_training(run, with_weights=False).model,
            build_to_count(run, size, built.tokenizer.seg_id),
        )
    }
    assert len(counts) == 1
    untied = build_for_training(tiny_run(tmp_path / "run", f"model.lora.rank={lora}"), with_weights=False).model
    assert sum(parameter.numel() for parameter in untied.parameters()) == counts.pop() + size * 32


def test_bytes_by_hand() -> None:
    config = load_config(RunConfig, None, ["engine.keep_whole_below=10"])
    sizes = Sizes(every=(100, 7), trained=(7,), largest_leaf=100)
    assert held_bytes(config, sizes, ranks=4) == {
        "parameters": 2 * (25 + 2) + 2 * 7,
        "gradients": 4 * 2,
        "optimizer": 12 * 2,
    }
    # The gradients of one micro-batch are not summed; without ZeRO their float32 sums lie beside them.
    one = replace(config, global_batch_size=8)
    assert held_bytes(one, sizes, ranks=4)["gradients"] == 2 * 2
    for stage, optimizer in ((0, 12 * 7), (1, 12 * 2)):
        held = held_bytes(replace(config, engine=replace(config.engine, stage=stage)), sizes, ranks=4)
        assert (held["gradients"], held["optimizer"]) == ((2 + 4) * 7, optimizer)
    assert wire_bytes(config, sizes, ranks=4, accumulation=5) == int(5 * 2 * (2 * 100 + 7) * 0.75)
    assert group_bytes(config, sizes, accumulation=5) == 0
    # Pairs of ranks hold a second copy: all ranks gather once, a pair the other nine times.
    hpz = replace(config, engine=replace(config.engine, hpz_partition_size=2))
    assert held_bytes(hpz, sizes, ranks=4)["parameters"] == 2 * (25 + 2) + 2 * 7 + 2 * (50 + 4)
    assert wire_bytes(hpz, sizes, ranks=4, accumulation=5) == int(2 * (100 + 5 * 7) * 0.75)
    assert group_bytes(hpz, sizes, accumulation=5) == 9 * 2 * 100 // 2


def test_a_prompt_is_its_frames_and_its_text() -> None:
    config = load_config(RunConfig, CONFIGS / "glus_s.yaml", [])
    tokens = []
    for share in (True, False):
        shared = replace(config, model=replace(config.model, share_video_tokens=share))
        load = load_of(shared, PlanConfig(Path("unused")), videos=2)
        assert (load.videos, load.shown, load.expressions) == (2, 8, 6)
        tokens.append(load.tokens)
    assert tokens == [2 * (5 * 64 + 55) + 6 * (3 * 64 + 95), 6 * (8 * 64 + 150)]
    longer = load_of(config, PlanConfig(Path("unused"), prompt_tokens=8 * 64 + 200), videos=2)
    assert longer.tokens == tokens[0] + 6 * 50


def test_packed_rows_take_seven_tenths_of_the_flop_of_glus_a() -> None:
    config = load_config(RunConfig, CONFIGS / "glus_a.yaml", [])
    cost = step_cost(build_to_count(config, 32_003, 32_000), torch.bfloat16)
    alone = replace(config, model=replace(config.model, share_video_tokens=False))
    flop = [cost.model_flop(load_of(each, PlanConfig(Path("unused")), videos=80)) for each in (config, alone)]
    print(f"{flop[0] / 1e12:,.0f} of {flop[1] / 1e12:,.0f} x 10^12 FLOP")
    assert flop[0] <= 0.70 * flop[1]


def test_the_reference_run_is_planned_without_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(CONFIGS / "glus_s.yaml"), "--nodes", "1", "--gpus-per-node", "8"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    for row in ("parameters", "gradients", "optimizer", "activations", "buffers", "received by a GPU", "GPU-hours"):
        assert row in told
    assert "5 of 2 videos" in told


def test_ranks_that_do_not_fit_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(CONFIGS / "glus_s.yaml"), "--nodes", "8", "--gpus-per-node", "8"]) == 2
    assert "global_batch_size 80 does not divide into micro-batches of 2 on 64 ranks" in capsys.readouterr().err
    assert cli.main(["plan", str(CONFIGS / "glus_s.yaml"), "--nodes", "0"]) == 2
    assert "nodes=0: it must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["glus_s", "glus_a", "glus_a_oc"])
def test_the_three_configs_are_of_the_reference(name: str) -> None:
    config = load_config(RunConfig, CONFIGS / f"{name}.yaml", [])
    assert config.global_batch_size == 80 and config.engine.micro_batch_size == 2
    assert config.steps == (3000 if name == "glus_s" else 5000)
    assert config.optimizer == RunConfig().optimizer and config.trainable == RunConfig().trainable
    assert config.model.lora == RunConfig().model.lora and config.engine.stage == 3
    assert (config.model.loss.contrastive, config.model.loss.contrastive_pool) == {
        "glus_s": (0.1, "bank"),
        "glus_a": (0.0, "batch"),
        "glus_a_oc": (0.1, "batch"),
    }[name]
