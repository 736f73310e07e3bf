"""The training loop, one screen: micro-batches in, optimiser steps, figures to tracking, checkpoints out."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from glus.data_pipeline.batch import Batch
from glus.data_pipeline.sampling import SamplePlan
from glus.data_pipeline.tokenizer import Tokenizer
from glus.training import checkpoint
from glus.training.code_version import code_version
from glus.training.config import RunConfig
from glus.training.distributed import Rank
from glus.training.engine import Engine
from glus.training.errors import TrainingError
from glus.training.schedule import learning_rate
from glus.training.tracking import Tracker


class Trainer:
    """One run on one rank. `tracker` is None on every rank but 0."""

    def __init__(
        self,
        config: RunConfig,
        engine: Engine,
        plan: SamplePlan,
        tokenizer: Tokenizer,
        rank: Rank,
        tracker: Tracker | None,
    ):
        self.config, self.engine, self.plan, self.tokenizer = config, engine, plan, tokenizer
        self.rank, self.tracker = rank, tracker
        self.folder = Path(config.out) / "checkpoints"

    def run(self, batches: Iterator[Batch], start: int) -> Path:
        """Train from step `start` to the end; returns the last checkpoint. Raises TrainingError: non-finite loss."""
        config, path = self.config, None
        with tqdm(
            total=config.steps,
            initial=start,
            desc=config.name,
            unit="step",
            disable=self.rank.rank > 0,
            mininterval=1.0,
        ) as bar:
            for step in range(start, config.steps):
                rate = learning_rate(step, config.steps, config.optimizer.learning_rate, config.optimizer.warmup_steps)
                # Dropout's draws follow from seed, step and rank: a resumed run goes on as one that never stopped.
                key = np.random.SeedSequence([config.seed, step, self.rank.rank]).generate_state(1, np.uint64)
                torch.manual_seed(int(key[0]))
                began = time.perf_counter()
                figures = self.engine.step(batches, rate)
                seconds = time.perf_counter() - began
                self._refuse_non_finite(figures, step)
                done = step + 1
                if self.tracker and (done % config.log_every == 0 or done == config.steps):
                    videos = {"videos_per_second": config.global_batch_size / seconds}
                    self.tracker.log_metrics(
                        {**figures, **videos, "learning_rate": rate, "step_seconds": seconds}, done
                    )
                    bar.set_postfix(loss=f"{figures['total']:.3f}", refresh=False)
                bar.update(1)
                if done == config.steps or (config.checkpoint_every and done % config.checkpoint_every == 0):
                    path = self.save(done)
        return path or self.save(config.steps)

    def save(self, step: int) -> Path:
        """Write a checkpoint together with all ranks; returns its folder.

        Raises TrainingError on a full disk: nothing of this checkpoint is left, the earlier ones are not touched.
        """
        weights = self.engine.gather()
        path = checkpoint.writing(self.folder, step)
        try:
            self._write(path, weights, step)
            if self.rank.rank == 0:
                checkpoint.publish(path, self.folder, step)
        except TrainingError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return self.folder / checkpoint.name_of(step)

    def _write(self, path: Path, weights: dict[str, Tensor], step: int) -> None:
        if self.rank.rank == 0:
            checkpoint.aside(self.folder, step)
            state = checkpoint.RunState(
                step=step,
                seed=self.config.seed,
                data_fingerprint=self.plan.fingerprint,
                tracking_run=self.tracker.run_id if self.tracker else "",
                code_version=json.dumps(code_version()),
                ranks=self.rank.ranks,
            )
            checkpoint.write(path, weights, state, asdict(self.config), self.tokenizer.path)
        self.engine.barrier()
        self.engine.save(path / checkpoint.ENGINE)
        self.engine.barrier()

    def _refuse_non_finite(self, figures: dict[str, float], step: int) -> None:
        # The figures are means over all ranks, so all ranks stop together.
        bad = [name for name, value in figures.items() if value != value or abs(value) == float("inf")]
        if bad:
            slots = self.plan.global_batch(step)
            named = {self.plan.splits[slot.split].videos[slot.video].video for slot in slots}
            raise TrainingError(
                f"step {step}: {', '.join(bad)} is not finite; the step's videos are {', '.join(sorted(named))}. "
                "Lower optimizer.learning_rate, or look at these videos with their masks"
            )
