"""One rank of a training run, from config to last checkpoint; `Trainer.run` (trainer.py) is the loop over steps.

`glus train` (launch/cli.py) starts the ranks (launch/ranks/ranks.py), and each of them calls `train`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from glus.common.cores import usable_cores
from glus.common.errors import TrainingError
from glus.common.out_of_memory import memory_explained
from glus.common.terminal import one_line
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.model.compiling import check_compiler
from glus.training.build import Built, build_for_training, build_to_count
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.resuming import check_resumable, choose_checkpoint, is_done
from glus.training.checkpoints.starting import check_labels
from glus.training.devices import choose_device, claim, gpu_count
from glus.training.distributed import Rank
from glus.training.engines.choose import check_shares, joined, make_contrast, make_engine
from glus.training.hub_weights import fetch_weights
from glus.training.metrics.cost import step_cost
from glus.training.metrics.meter import Meter
from glus.training.metrics.peaks import known_peak, unknown_gpu
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import StepDecider, StopFlag, forget_stop
from glus.training.stopping.watchdog import Watchdog
from glus.training.tracking.mlflow_client import check_reachable
from glus.training.tracking.run_record import located, start_tracking
from glus.training.trainer import Trainer

#: engine.deterministic: cuBLAS and flash-attn read these as they begin.
_SETTINGS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
#: How torch says that an operation has no such algorithm.
_SIGNS = ("does not have a deterministic implementation", "Deterministic behavior was enabled")


def train(
    config: RunConfig, rank: Rank, stop: StopFlag | None = None, checked: Callable[[], None] | None = None
) -> Path:
    """Train as rank `rank`; returns the last checkpoint. Resumes from the newest intact one in `OUT/checkpoints`.

    A signal, or the file OUT/stop, ends it earlier and leaves OUT/stopped.json (stopping.py). `stop` is the flag of a
    process that listens to signals already. Rank 0 calls `checked` when settings, data, weights and MLflow have passed
    all checks; before that nothing is written into OUT.
    Raises TrainingError, DataError or ModelError, each with one clear message, before the first step where it can.
    """
    kind = choose_device(config.engine.device)
    rank = replace(rank, on_cpu=kind == "cpu")
    rank.check_device(gpu_count(kind))
    claim(rank.device)
    check_compiler(config.engine.compile, kind, "engine.compile")
    with deterministic(config.engine.deterministic), memory_explained(f"rank {rank.rank}", less_memory(config)):
        return _train_rank(config, rank, stop, checked)


def less_memory(config: RunConfig) -> str:
    """Say what a run can do when memory runs out."""
    engine = config.engine
    ways = f"a smaller engine.micro_batch_size (now {engine.micro_batch_size})"
    if not engine.gradient_checkpointing:
        ways = f"engine.gradient_checkpointing=true, {ways}"
    else:
        ways = f"{ways} (engine.gradient_checkpointing is on)"
    return f"set {ways}, engine.offload (now {engine.offload}) or more GPUs; `glus plan` says what a run takes"


def sample_plan(config: RunConfig) -> SamplePlan:
    """The run's samples: of all its steps, or of the first `overfit` ones, repeated. Raises DataError."""
    splits = open_splits(Path(config.shards), list(config.sampling.mixture))
    return SamplePlan(splits, config.sampling, config.seed, config.global_batch_size, repeat=config.overfit)


def _train_rank(config: RunConfig, rank: Rank, stop: StopFlag | None, checked: Callable[[], None] | None) -> Path:
    check_shares(config, rank.ranks, int(os.environ.get("LOCAL_WORLD_SIZE", "0")))
    plan = sample_plan(config)
    out = Path(config.out)
    if is_done(out / "checkpoints", config.steps):
        return checkpoint.resolve(out)
    if rank.rank == 0:
        check_reachable(located(config.tracking, out))
    if rank.device.type == "cpu":
        # Ranks of one machine share its cores.
        torch.set_num_threads(max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", rank.ranks))))
    if not checkpoint.newest_first(out / "checkpoints"):
        fetch_weights(config.weights)  # before ranks wait for each other and the watchdog counts
    with contextlib.ExitStack() as held:
        flag = held.enter_context((stop or StopFlag()).watching(out if rank.rank == 0 else None))
        watchdog = held.enter_context(Watchdog(out, rank.rank, config.hang_minutes))
        held.enter_context(joined(config, rank))
        resumed = choose_checkpoint(out / "checkpoints", rank)
        if resumed:
            check_resumable(resumed, config, plan.fingerprint, rank)
        else:
            check_labels(config, plan.labels)
        # The engine scatters the weights from rank 0, which reads or draws one after the other: no other rank does.
        built = build_for_training(config, resumed, with_weights=rank.rank == 0, late=True)
        # After that: a model that cannot be built leaves no record.
        tracker = held.enter_context(start_tracking(config, plan, resumed)) if rank.rank == 0 else None
        if rank.rank == 0:
            if checked:
                checked()
            forget_stop(out)
            _print_model(built, plan)
        watchdog.beat()
        engine = make_engine(config, built.model, rank, built.values)
        contrast = make_contrast(config, rank, [split.dataset for split in plan.splits])
        decider = StepDecider(config, rank, flag)
        trainer = Trainer(config, engine, plan, built.tokenizer, rank, tracker, contrast, decider, watchdog)
        start = _load_state(trainer, resumed) if resumed else 0
        loader = Loader(
            plan,
            built.tokenizer,
            rank=rank.rank,
            ranks=rank.ranks,
            size=config.engine.micro_batch_size,
            start=start,
            stop=config.steps,
            workers=config.workers,
        )
        watchdog.beat()
        with loader:
            path = trainer.run(_metered(config, loader, rank, built.tokenizer), start)
        if tracker:
            tracker.set_tags({"checkpoint": str(path.resolve())})
        engine.close()
    return path


def _print_model(built: Built, plan: SamplePlan) -> None:
    for line in (*plan.notes, *built.notes):
        print(one_line(f"  {line}"))
    for row in built.trainable:
        print(f"  trains {row.elements:>12,} elements in {row.tensors:>4} tensors matching {row.pattern}")


def _load_state(trainer: Trainer, resumed: Path) -> int:
    """Load what a checkpoint holds in addition to weights; returns its step."""
    state = checkpoint.read_state(resumed)
    trainer.engine.load(resumed / checkpoint.ENGINE, state.ranks)
    trainer.take_base(resumed)
    if trainer.contrast:
        trainer.contrast.load(resumed / checkpoint.CONTRAST)
    return state.step


def _metered(config: RunConfig, batches: Iterator[Batch], rank: Rank, tokenizer: Tokenizer) -> Meter:
    peak = config.engine.peak_tflops * 1e12 or known_peak(rank.device)
    cost = None
    if peak:
        cost = step_cost(build_to_count(config, tokenizer.vocab_size, tokenizer.seg_id))
    elif rank.rank == 0 and (unknown := unknown_gpu(rank.device, config.engine.peak_tflops)):
        print(f"  {unknown}", flush=True)
    return Meter(batches, config.model, rank, cost, peak)


@contextlib.contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Deterministic algorithms within, where they are asked for; entered before the GPU is first used.

    Raises TrainingError where an operation has none: nothing is silently left out.
    """
    if not asked:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not any(sign in text for sign in _SIGNS):
            raise
        raise TrainingError(f"engine.deterministic: {text.split('. ')[0]}: set engine.deterministic=false") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
