"""One rank of a training run, from config to last checkpoint."""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from glus.data_pipeline.loader import micro_batches
from glus.data_pipeline.reader import open_splits
from glus.data_pipeline.sampling import SamplePlan
from glus.model.segmenter import Segmenter
from glus.training import checkpoint
from glus.training.build import build_for_training
from glus.training.config import RunConfig
from glus.training.distributed import Rank
from glus.training.engine import Engine
from glus.training.errors import TrainingError
from glus.training.tracking import Tracker
from glus.training.trainer import Trainer

#: Gathered whole by ZeRO-3: the segmenter reads parameters outside forward, the others are cheaper in one piece.
LEAVES = (Segmenter, CLIPEncoderLayer, LlamaDecoderLayer)


def train(config: RunConfig, rank: Rank) -> Path:
    """Train as rank `rank`; returns the last checkpoint. Resumes from `OUT/checkpoints/latest` where there is one.

    Raises TrainingError, DataError or ModelError, each with one clear message, before the first step where it can.
    """
    accumulation = accumulation_for(config, rank.ranks)
    plan = SamplePlan(
        open_splits(Path(config.shards), list(config.sampling.mixture)),
        config.sampling,
        config.seed,
        config.global_batch_size,
    )
    resumed = checkpoint.find_latest(Path(config.out) / "checkpoints")
    state = checkpoint.read_state(resumed) if resumed else None
    if state:
        _check_resumable(state, config, plan, rank)
        if state.step >= config.steps:
            return checkpoint.resolve(Path(config.out))
    if not torch.cuda.is_available():
        # Ranks of one machine share its cores.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", rank.ranks))))
    built = build_for_training(config, resumed)
    # Before the ranks meet: where MLflow cannot be reached, nobody is left waiting half-way.
    tracker = _start_tracking(config, plan, state) if rank.rank == 0 else None
    with tracker or contextlib.nullcontext(), Engine.joined(rank):
        if rank.rank == 0:
            for row in built.trainable:
                print(f"  trains {row.elements:>12,} elements in {row.tensors:>4} tensors matching {row.pattern}")
        engine = Engine(built.model, config.engine, config.optimizer, accumulation, rank, LEAVES)
        if resumed:
            engine.load(resumed / checkpoint.ENGINE)
        start = state.step if state else 0
        batches = micro_batches(
            plan,
            built.tokenizer,
            rank=rank.rank,
            ranks=rank.ranks,
            size=config.engine.micro_batch_size,
            start=start,
            stop=config.steps,
            workers=config.workers,
        )
        path = Trainer(config, engine, plan, built.tokenizer, rank, tracker).run(batches, start)
        if tracker:
            tracker.set_tags({"checkpoint": str(path.resolve())})
        engine.close()
    return path


def accumulation_for(config: RunConfig, ranks: int) -> int:
    """Micro-batches a rank takes for an optimiser step. Raises TrainingError where the global batch does not divide."""
    together = ranks * config.engine.micro_batch_size
    if config.global_batch_size % together:
        raise TrainingError(
            f"global_batch_size {config.global_batch_size} does not divide into micro-batches of "
            f"{config.engine.micro_batch_size} on {ranks} ranks: make it a multiple of {together}"
        )
    return config.global_batch_size // together


def _check_resumable(state: checkpoint.RunState, config: RunConfig, plan: SamplePlan, rank: Rank) -> None:
    if state.data_fingerprint != plan.fingerprint:
        raise TrainingError(
            f"{config.out} was trained on other shards ({state.data_fingerprint}, now {plan.fingerprint}): "
            "restore them, or train into another `out`"
        )
    if state.seed != config.seed or state.ranks != rank.ranks:
        raise TrainingError(
            f"{config.out} was begun with seed {state.seed} on {state.ranks} ranks, now seed {config.seed} on "
            f"{rank.ranks}: use the same, or train into another `out`"
        )


def _start_tracking(config: RunConfig, plan: SamplePlan, state: checkpoint.RunState | None) -> Tracker:
    tracker = Tracker.start(
        config.tracking, config.name, asdict(config), {"kind": "training"}, run_id=state.tracking_run if state else None
    )
    for split in plan.splits:
        expressions = sum(len(entry.expressions) for entry in split.videos)
        tracker.log_dataset(
            f"{split.dataset}/{split.split}",
            split.fingerprint,
            {"videos": len(split.videos), "expressions": expressions},
        )
    return tracker
