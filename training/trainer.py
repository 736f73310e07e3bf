"""The training loop: micro-batches in, optimizer steps, metrics to tracking, checkpoints out."""

import itertools
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from glus.common.errors import TrainingError
from glus.common.progress import Progress
from glus.common.seeds import seed_of
from glus.common.urls import without_secrets
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.adapter import write_adapter
from glus.training.checkpoints.base_weights import Base, fitting_base, frozen_names, write_base
from glus.training.checkpoints.integrity import note_digests
from glus.training.checkpoints.keeping import remove_others
from glus.training.contrast import ContrastiveLoss
from glus.training.distributed import Rank
from glus.training.engines.choose import TrainingEngine
from glus.training.metrics.meter import Meter
from glus.training.metrics.node_watch import NodeWatch
from glus.training.metrics.profiling import profiled
from glus.training.optim import learning_rate
from glus.training.run_config import RunConfig
from glus.training.stopping.health import refuse_non_finite
from glus.training.stopping.stopping import Cause, StepDecider, record_stop
from glus.training.stopping.watchdog import Watchdog
from glus.training.tracking.code_version import code_version
from glus.training.tracking.tracking import Tracker
from glus.training.unreached import Reached, warning_of


class Trainer:
    """One run on one rank. `tracker` is None on every rank but 0."""

    def __init__(
        self,
        config: RunConfig,
        engine: TrainingEngine,
        plan: SamplePlan,
        tokenizer: Tokenizer,
        rank: Rank,
        tracker: Tracker | None,
        contrast: ContrastiveLoss | None,
        decider: StepDecider,
        watchdog: Watchdog,
    ):
        self.config, self.engine, self.plan, self.tokenizer = config, engine, plan, tokenizer
        self.rank, self.tracker, self.contrast = rank, tracker, contrast
        self.decider, self.watchdog = decider, watchdog
        #: Losses since the last checkpoint.
        self.losses: list[float] = []
        self.folder = Path(config.out) / "checkpoints"
        #: Names of parameters that go to a base, and rank 0's base.
        self.frozen = frozen_names(engine.module)
        self.base: Base | None = None

    def run(self, meter: Meter, start: int) -> Path:
        """Train from step `start` to the end, or until a stop request; returns the last checkpoint.

        Raises TrainingError where a loss is not finite, or a checkpoint cannot be written.
        """
        config, optimizer, path = self.config, self.config.optimizer, None
        with (
            Progress(
                total=config.steps,
                initial=start,
                desc=config.name,
                unit="step",
                disable=self.rank.rank > 0,
                mininterval=1.0,
            ) as bar,
            profiled(config.profile, Path(config.out), self.rank) as after_step,
        ):
            nodes, reached = NodeWatch(self.rank), Reached(self.engine.module)
            for step in range(start, config.steps):
                rate = learning_rate(
                    step, config.steps, optimizer.learning_rate, optimizer.warmup_steps, optimizer.decay_steps
                )
                meter.begin()
                losses = self.engine.step(self._keyed(meter, step), rate, self.contrast, step)
                meter.end()
                refuse_non_finite(losses, self.engine.last, step, self.rank, Path(config.out))
                if step == start:
                    warning = warning_of(reached.unreached(self.rank), config)
                    if warning and self.rank.rank == 0:
                        print(warning, flush=True)
                done = step + 1
                after_step()
                if done % config.log_every == 0 or done == config.steps:
                    measured = meter.metrics() | nodes.metrics()
                    if self.tracker:
                        self.tracker.log_metrics({**losses, **measured, "learning_rate": rate}, done)
                        bar.set_postfix(loss=f"{losses['total']:.3f}", refresh=False)
                bar.update(1)
                self.losses.append(losses["total"])
                self.watchdog.beat()
                decision = self.decider.after(done)
                if decision.save:
                    began = time.perf_counter()
                    path = self.save(done)
                    meter.leave_out(time.perf_counter() - began)
                if decision.stop:
                    self._stop(decision.stop, done)
                    break
        return path or self.save(config.steps)

    def _keyed(self, batches: Iterator[Batch], step: int) -> Iterator[Batch]:
        """Dropout's draws follow from seed, step and place in the global batch: a resumed run goes on as one that never
        stopped, on any number of ranks."""
        for turn in itertools.count():
            place = turn * self.rank.ranks + self.rank.rank
            torch.manual_seed(seed_of(self.config.seed, step, place))
            yield next(batches)

    def _stop(self, stop: Cause, done: int) -> None:
        if self.rank.rank == 0:
            print(
                f"stopping after step {done} of {self.config.steps}: {stop.words}; the checkpoint is written",
                flush=True,
            )
            record_stop(Path(self.config.out), stop, done, self.config.steps)
        if self.tracker:
            self.tracker.stopped = True

    def save(self, step: int) -> Path:
        """Write a checkpoint together with all ranks; returns its folder.

        Raises TrainingError on a full disk: nothing of this checkpoint is left, the earlier ones are not touched.
        """
        began = time.perf_counter()
        new_base = self._needs_base()
        weights = self.engine.gather(without=() if new_base else self.frozen)
        path = checkpoint.writing(self.folder, step)
        try:
            if new_base and self.rank.rank == 0:
                self.base = write_base(self.folder, {name: weights.pop(name) for name in sorted(self.frozen)})
                self.watchdog.beat()
            self._write(path, weights, step)
            if self.rank.rank == 0:
                checkpoint.publish(path, self.folder, step)
                remove_others(self.folder, self.config.keep)
            # A rank that ended earlier could take the others with it: its launcher ends, and then the job's step.
            self.engine.barrier()
        except TrainingError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self.losses.clear()
        self.decider.saved()
        self.watchdog.beat()
        if self.tracker:
            self.tracker.log_metrics({"checkpoint_seconds": time.perf_counter() - began}, step)
            self.tracker.log_checkpoint(self.folder / checkpoint.name_of(step), step)
        return self.folder / checkpoint.name_of(step)

    def take_base(self, resumed: Path) -> None:
        """Go on with the base of a checkpoint in this run's folder, where it holds what is frozen now."""
        frozen = {name: each for name, each in self.engine.module.named_parameters() if name in self.frozen}
        self.base = fitting_base(resumed, frozen)

    def _needs_base(self) -> bool:
        """Whether the frozen weights must be written (again). All ranks call it and get the same."""
        if not self.frozen:
            return False
        there = self.rank.rank > 0 or (self.base is not None and self.base.is_in(self.folder))
        [needed] = self.rank.all_reduce_max([int(not there)])
        return bool(needed)

    def _write(self, path: Path, weights: dict[str, Tensor], step: int) -> None:
        if self.rank.rank == 0:
            checkpoint.aside(self.folder, step)
            if self.tracker:
                self.tracker.sync()
            state = checkpoint.RunState(
                step=step,
                seed=self.config.seed,
                data_fingerprint=self.plan.fingerprint,
                tracking_run=self.tracker.run_id if self.tracker else "",
                code_version=json.dumps(code_version()),
                ranks=self.rank.ranks,
                loss=sum(self.losses) / len(self.losses) if self.losses else None,
                written=time.time(),
                base=self.base.digest if self.base else "",
                base_bytes=self.base.size if self.base else 0,
            )
            checkpoint.write(path, weights, state, without_secrets(asdict(self.config)), self.tokenizer.path)
            write_adapter(path, weights, self.config.model.lora, self.config.weights.tokenizer)
        self.engine.barrier()
        self.engine.save(path / checkpoint.ENGINE)
        if self.contrast:
            self.contrast.save(path / checkpoint.CONTRAST)
        self.watchdog.beat()
        self.engine.barrier()
        note_digests(path, self.rank.rank)
        self.engine.barrier()
