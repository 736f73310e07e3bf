"""Processes that predict, each with a model of its own. The one that started them hands out the items of the work list,
the next to whoever is free."""

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal

import torch

from glus.common.cores import usable_cores
from glus.common.errors import LaunchError, UserError
from glus.common.out_of_memory import memory_explained
from glus.common.progress import Progress
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig, Predicted
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.worklist import WorkItem
from glus.launch.quiet import quiet_libraries
from glus.launch.ranks.parent import end_with_parent
from glus.training.devices import Kind, claim
from glus.training.distributed import Rank

#: Seconds that a process has to end by itself.
GRACE = 10


@dataclass(frozen=True)
class Prediction:
    """What is to be predicted: `items` of the work list of the splits by one model, into the folder `masks`.

    `device` is the first GPU to use where `kind` is "cuda".
    """

    source: ModelSource
    splits: tuple[ShardedSplit, ...]
    masks: Path
    config: InferenceConfig
    items: tuple[WorkItem, ...]
    device: int = 0
    kind: Kind = "cpu"


@dataclass(frozen=True)
class Done:
    """An item that is done, and how."""

    item: WorkItem
    predicted: Predicted


@dataclass(frozen=True)
class _News:
    """From a process: "ready" for an item, "done" with one, "told" a message for a person, or a "bug" (a traceback)."""

    what: Literal["ready", "done", "told", "bug"]
    done: Done | None = None
    text: str = ""


class PredictionBug(Exception):
    """A process ended by a bug; the message is its traceback."""


def processes_for(asked: int, videos: int, kind: Kind = "cpu") -> int:
    """`asked`, or for 0 one a GPU and on the CPU one a core; no more than there are videos, and at least 1.

    Raises LaunchError for a negative number, or more than one for each GPU.
    """
    devices = torch.cuda.device_count() if kind == "cuda" else 0
    if asked < 0 or (devices and asked > devices):
        there = f"this machine has {devices} GPUs" if devices else "0 takes one a core"
        raise LaunchError(f"processes={asked}: {there}; give 0 or more, and no more than there are GPUs")
    return max(1, min(asked or devices or usable_cores(), videos))


def predict(work: Prediction, processes: int) -> Iterator[Done]:
    """Predict what is not on disk yet and yield each item as it is done.

    One process is this one; more are spawned. Raises LaunchError where one dies or stops with a message, PredictionBug
    where one has a bug; the others are then stopped. What is on disk by then is whole and is kept.
    """
    label = f"segment, {processes} process{'es' if processes > 1 else ''} on {work.kind}"
    with Progress(total=len(work.items), desc=label, unit="video") as bar:
        if work.items:
            for done in _alone(work) if processes == 1 else _together(work, processes):
                bar.update(1)
                yield done


def _alone(work: Prediction) -> Iterator[Done]:
    one = Predictor(work, 0)
    for item in work.items:
        yield one.predict(item)


class Predictor:
    """A model that is loaded, for one item after the other."""

    def __init__(self, work: Prediction, index: int) -> None:
        """`index` counts the processes of this machine. Raises TrainingError or ModelError."""
        cuda = work.kind == "cuda"
        self._device = torch.device("cuda", work.device + index) if cuda else torch.device("cpu")
        claim(self._device)
        self._work = work
        with self._memory_explained():
            self._loaded = work.source.load(self._device, work.config.precision)
        if index == 0 and Rank.from_environment().rank == 0 and self._loaded.told:
            print(plain("\n".join(self._loaded.told)))

    def predict(self, item: WorkItem) -> Done:
        """Predict those expressions of the item's video that are not on disk yet."""
        from glus.evaluation.predict.inference import predict_split

        split = self._work.splits[item.split]
        part = (item.video, len(split.videos))
        masks, config = self._work.masks, self._work.config
        with self._memory_explained():
            return Done(
                item, predict_split(self._loaded, split, masks, config, self._device, part=part, progress=False)
            )

    def _memory_explained(self) -> AbstractContextManager[None]:
        return memory_explained(
            f"prediction on {self._device}", self._work.config.less_memory("fewer processes"), LaunchError
        )


def _together(work: Prediction, processes: int) -> Iterator[Done]:
    left = iter(work.items)
    with _started(work, processes) as started:
        running, released = dict(started), set()
        while running:
            for pipe in multiprocessing.connection.wait(list(running)):
                assert isinstance(pipe, Connection)
                try:
                    news: _News = pipe.recv()
                except (EOFError, ConnectionResetError):
                    process = running.pop(pipe)
                    # One with nothing left to do may take its time to end.
                    if pipe not in released:
                        _check_end(process)
                    continue
                if news.what == "told":
                    raise LaunchError(news.text)
                if news.what == "bug":
                    raise PredictionBug(news.text)
                if news.done is not None:
                    yield news.done
                # None ends the process. One that died meanwhile is told when its pipe is read.
                item = next(left, None)
                if item is None:
                    released.add(pipe)
                with contextlib.suppress(BrokenPipeError):
                    pipe.send(item)


@contextmanager
def _started(work: Prediction, processes: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Processes by the pipe that they tell their news through; none runs any more afterwards."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads, and CUDA
    started: dict[Connection, SpawnProcess] = {}
    try:
        for index in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=work_part, args=(work, index, processes, theirs), daemon=True)
            process.start()
            theirs.close()  # else the end of the process would not be the end of the pipe
            started[ours] = process
        yield started
    finally:
        for process in started.values():
            process.terminate()
        for pipe, process in started.items():
            process.join(GRACE)
            if process.is_alive():
                process.kill()
            pipe.close()


def _check_end(process: SpawnProcess) -> None:
    process.join(GRACE)
    code = process.exitcode
    ended = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
    lack = " (most often for lack of memory: give fewer `processes`)" if code == -signal.SIGKILL else ""
    raise LaunchError(
        f"a process that predicts {ended}{lack}; the others were stopped. The same command goes on from what is done"
    )


def work_part(work: Prediction, index: int, processes: int, pipe: Connection) -> None:
    """A spawned process: predicts the items that come through the pipe until None comes, and tells through it."""

    # Ctrl-C goes to all; the one that the person started tells of it and stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Else the same command, started again, would predict the item at hand a second time beside this process.
    end_with_parent()
    quiet_libraries()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, usable_cores() // processes))
    try:
        one = Predictor(work, index)
        pipe.send(_News("ready"))
        while (item := pipe.recv()) is not None:
            pipe.send(_News("done", one.predict(item)))
    except UserError as error:
        pipe.send(_News("told", text=str(error)))
    except Exception:  # noqa: BLE001 -- told by the process that started this one
        pipe.send(_News("bug", text=traceback.format_exc()))
    finally:
        pipe.close()
        sys.stdout.flush()
