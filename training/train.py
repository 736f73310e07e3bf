"""One rank of a training run, from config to last checkpoint."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from glus.common.cores import usable_cores
from glus.common.terminal import one_line
from glus.data_pipeline.batch import Batch
from glus.data_pipeline.loader import Loader
from glus.data_pipeline.reader import open_splits
from glus.data_pipeline.sampling import SamplePlan
from glus.data_pipeline.tokenizer import Tokenizer
from glus.model.empty import build_empty
from glus.model.trainable import set_trainable
from glus.training import checkpoint
from glus.training.build import Built, build_for_training
from glus.training.config import RunConfig
from glus.training.cost import step_cost
from glus.training.distributed import Rank
from glus.training.engines import check_shares, joined, make_contrast, make_engine
from glus.training.meter import Meter, known_peak
from glus.training.orders import Orders
from glus.training.overfit import plan_of
from glus.training.resuming import check_resumable, choose_checkpoint, is_done
from glus.training.run_record import located, start_tracking
from glus.training.stopping import StopFlag, forget_stop
from glus.training.tracking import Tracker, check_reachable
from glus.training.trainer import Trainer
from glus.training.watchdog import Watchdog


def train(
    config: RunConfig, rank: Rank, stop: StopFlag | None = None, checked: Callable[[], None] | None = None
) -> Path:
    """Train as rank `rank`; returns the last checkpoint. Goes on from the newest whole one in `OUT/checkpoints`.

    Ends earlier where a signal, or the file OUT/stop, says so (stopping.py): then OUT/stopped.json is there. `stop` is
    the flag of a process that listens to signals already. Rank 0 calls `checked` when nothing of the settings, the
    data, the weights and MLflow speaks against the training; before that nothing is written into OUT.
    Raises TrainingError, DataError or ModelError, each with one clear message, before the first step where it can.
    """
    rank.check_device(torch.cuda.device_count())
    check_shares(config, rank.ranks)
    plan = plan_of(config, open_splits(Path(config.shards), list(config.sampling.mixture)))
    out = Path(config.out)
    if is_done(out / "checkpoints", config.steps):
        return checkpoint.resolve(out)
    if rank.rank == 0:
        check_reachable(located(config.tracking, out))
    if not torch.cuda.is_available():
        # Ranks of one machine share its cores.
        torch.set_num_threads(max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", rank.ranks))))
    with contextlib.ExitStack() as held:
        flag = held.enter_context((stop or StopFlag()).watching(out if rank.rank == 0 else None))
        watchdog = held.enter_context(Watchdog(out, rank.rank, config.hang_minutes))
        held.enter_context(joined(config, rank))
        resumed = choose_checkpoint(out / "checkpoints", rank)
        if resumed:
            check_resumable(resumed, config, plan.fingerprint, rank)
        # ZeRO-3 hands the weights out from rank 0: of all ranks it alone reads them.
        built = build_for_training(config, resumed, whole=rank.rank == 0 or config.engine.stage != 3)
        # After that: a model that cannot be built leaves no record.
        tracker = held.enter_context(start_tracking(config, plan, resumed)) if rank.rank == 0 else None
        if rank.rank == 0 and checked:
            checked()
        watchdog.beat()
        trainer = _trainer(config, rank, plan, built, tracker, Orders(config, rank, flag), watchdog)
        path = _train(trainer, resumed)
    return path


def _trainer(
    config: RunConfig,
    rank: Rank,
    plan: SamplePlan,
    built: Built,
    tracker: Tracker | None,
    orders: Orders,
    watchdog: Watchdog,
) -> Trainer:
    if rank.rank == 0:
        forget_stop(Path(config.out))
        for line in built.told:
            print(one_line(f"  {line}"))
        for row in built.trainable:
            print(f"  trains {row.elements:>12,} elements in {row.tensors:>4} tensors matching {row.pattern}")
    engine, contrast = make_engine(config, built.model, rank), make_contrast(config, rank)
    return Trainer(config, engine, plan, built.tokenizer, rank, tracker, contrast, orders, watchdog)


def _train(trainer: Trainer, resumed: Path | None) -> Path:
    config, rank = trainer.config, trainer.rank
    start = 0
    if resumed:
        state = checkpoint.read_state(resumed)
        start = state.step
        trainer.engine.load(resumed / checkpoint.ENGINE, state.ranks)
        if trainer.contrast:
            trainer.contrast.load(resumed / checkpoint.CONTRAST)
    loader = Loader(
        trainer.plan,
        trainer.tokenizer,
        rank=rank.rank,
        ranks=rank.ranks,
        size=config.engine.micro_batch_size,
        start=start,
        stop=config.steps,
        workers=config.workers,
    )
    trainer.watchdog.beat()
    with loader:
        path = trainer.run(_metered(config, loader, rank, trainer.tokenizer), start)
    if trainer.tracker:
        trainer.tracker.set_tags({"checkpoint": str(path.resolve())})
    trainer.engine.close()
    return path


def _metered(config: RunConfig, batches: Iterator[Batch], rank: Rank, tokenizer: Tokenizer) -> Meter:
    peak = config.engine.peak_tflops * 1e12 or known_peak(rank.device)
    cost = None
    if peak:
        empty = build_empty(config.model, tokenizer.vocab_size, tokenizer.seg_id)
        set_trainable(empty, config.trainable)
        cost = step_cost(empty)
    return Meter(batches, config.model.vision.tokens_per_frame, rank, cost, peak)
