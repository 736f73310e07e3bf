"""Predict the work list of an evaluation: in this process, or in several that share it as the ranks of a job do."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, spawn

from glus.common.atomic import disk_fault
from glus.common.cores import usable_cores
from glus.common.errors import LaunchError, UserError
from glus.common.out_of_memory import memory_explained
from glus.common.progress import Progress
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig, Predicted
from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.provenance import MASKS
from glus.evaluation.predict.worklist import WorkItem, record_done, share
from glus.launch.quiet import quiet_libraries
from glus.launch.ranks.signals import end_with_parent
from glus.training.devices import Kind, claim, gpu_count
from glus.training.distributed import Rank

USER_ERROR = 2
#: Seconds between two looks at the processes.
POLL = 0.5


@dataclass(frozen=True)
class Prediction:
    """What is to be predicted: `items` of the work list of the splits by one model, into OUT/predictions.

    `device` is the first GPU to use where `kind` is "cuda".
    """

    source: ModelSource
    splits: tuple[ShardedSplit, ...]
    out: Path
    config: InferenceConfig
    items: tuple[WorkItem, ...]
    device: int = 0
    kind: Kind = "cpu"


def processes_for(asked: int, videos: int, kind: Kind = "cpu") -> int:
    """`asked`, or for 0 one a GPU and on the CPU one a core; no more than there are videos, and at least 1.

    Raises LaunchError for a negative number, or more than one for each GPU.
    """
    devices = gpu_count(kind)
    if asked < 0 or (devices and asked > devices):
        there = f"this machine has {devices} GPUs" if devices else "0 takes one a core"
        raise LaunchError(f"processes={asked}: {there}; give 0 or more, and no more than there are GPUs")
    return max(1, min(asked or devices or usable_cores(), videos))


def predict(work: Prediction, processes: int) -> None:
    """Predict and record all items. One process is this one; more are spawned, and each takes its share.

    Raises LaunchError where a process stops with a message or is killed, torch's ProcessRaisedException where one has a
    bug; the others are then stopped. What is on disk by then is complete and is kept.
    """
    label = f"segment, {processes} process{'es' if processes > 1 else ''} on {work.kind}"
    with Progress(total=len(work.items), desc=label, unit="video") as bar:
        if not work.items:
            return
        counts = _predict_here(work, 0, work.items) if processes == 1 else _predict_in_processes(work, processes)
        before = 0
        for done in counts:
            bar.update(done - before)
            before = done


class Predictor:
    """A model that is loaded, for one item after the other."""

    def __init__(self, work: Prediction, index: int) -> None:
        """`index` counts the processes of this machine. Raises TrainingError, ModelError or EvaluationError."""
        cuda = work.kind == "cuda"
        self._device = torch.device("cuda", work.device + index) if cuda else torch.device("cpu")
        claim(self._device)
        self._work = work
        self._key_frames = KeyFrames.read(work.config.key_frames) if work.config.key_frames else None
        with self._memory_explained():
            self._loaded = work.source.load(self._device, work.config.precision, work.config.post_optimise)
        if index == 0 and Rank.from_environment().rank == 0 and self._loaded.notes:
            print(plain("\n".join(self._loaded.notes)))

    def predict(self, item: WorkItem) -> Predicted:
        """Predict those expressions of the item's video that are not on disk yet."""
        from glus.evaluation.predict.inference import predict_video

        split, work = self._work.splits[item.split], self._work
        with self._memory_explained():
            return predict_video(
                self._loaded, split, item.video, work.out / MASKS, work.config, self._key_frames, self._device
            )

    def _memory_explained(self) -> AbstractContextManager[None]:
        return memory_explained(
            f"prediction on {self._device}", self._work.config.less_memory("fewer processes"), LaunchError
        )


def _predict_here(work: Prediction, index: int, items: Sequence[WorkItem]) -> Iterator[int]:
    """Predict and record items, and yield how many are done after each."""
    one = Predictor(work, index)
    for number, item in enumerate(items, 1):
        began = time.monotonic()
        done = one.predict(item)
        record_done(work.out, work.splits[item.split].videos[item.video], done, time.monotonic() - began)
        yield number


def _predict_in_processes(work: Prediction, processes: int) -> Iterator[int]:
    """Yield how many items all processes have done, now and then and at the end."""
    spawned = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads, and CUDA
    messages: SimpleQueue[str] = spawned.SimpleQueue()
    counts = spawned.RawArray("i", processes)  # one place for each: no lock that a killed process could hold
    context = spawn(_share_of_one, (work, processes, counts, messages), processes, join=False)
    assert isinstance(context, ProcessContext)
    with _ended(context):
        try:
            while not context.join(POLL):
                yield sum(counts)
        except ProcessExitedException as error:
            if not messages.empty():
                raise LaunchError(messages.get()) from error
            ended = f"was killed by {error.signal_name}" if error.signal_name else f"ended with {error.exit_code}"
            if error.signal_name == "SIGKILL":
                ended += " (most often out of memory: give fewer `processes`)"
            raise LaunchError(
                f"a process that predicts {ended}; the others were stopped. The same command skips what is predicted "
                "and goes on"
            ) from error
    yield sum(counts)


@contextmanager
def _ended(context: ProcessContext) -> Iterator[None]:
    """No process runs any more after the block, also where Ctrl-C ends it."""
    try:
        yield
    finally:
        for process in context.processes:
            process.terminate()
        for process in context.processes:
            process.join()


def _share_of_one(
    index: int, work: Prediction, processes: int, counts: MutableSequence[int], messages: "SimpleQueue[str]"
) -> None:
    """Predict the share of one spawned process. A message for the user goes through `messages`."""
    # Ctrl-C goes to all; the process that the user started reports it and stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Else the same command, started again, would predict the item at hand a second time next to this process.
    end_with_parent()
    quiet_libraries()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, usable_cores() // processes))
    try:
        for done in _predict_here(work, index, share(work.items, index, processes)):
            counts[index] = done
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else disk_fault(error)
        if not message:
            raise
        messages.put(message)
        sys.exit(USER_ERROR)
