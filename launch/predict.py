"""Several processes that predict, each with a model of its own, each every n-th video of all splits together."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from glus.data_pipeline.reader import ShardedSplit
from glus.evaluation.inference_config import InferenceConfig, Predicted
from glus.launch.errors import LaunchError
from glus.launch.quiet import quiet_libraries

#: Seconds that a process has to end by itself.
GRACE = 10


@dataclass(frozen=True)
class Prediction:
    """What is to be predicted: every expression of the splits by one checkpoint, into the folder `masks`."""

    checkpoint: Path
    splits: tuple[ShardedSplit, ...]
    masks: Path
    config: InferenceConfig


@dataclass(frozen=True)
class _News:
    """From a process: "done" with a video, "told" a message for a person, or a "bug" with its traceback."""

    what: Literal["done", "told", "bug"]
    done: Predicted = Predicted(0, 0, 0, 0)
    text: str = ""


class PredictionBug(Exception):
    """A process ended by a bug; the message is its traceback."""


def processes_for(asked: int, splits: Sequence[ShardedSplit]) -> int:
    """`asked`, or for 0 one a GPU and without GPU one a core; no more than there are videos.

    Raises LaunchError for a negative number, or more than one for each GPU.
    """
    devices = torch.cuda.device_count()
    if asked < 0 or (devices and asked > devices):
        there = f"this machine has {devices} GPUs" if devices else "0 takes one a core"
        raise LaunchError(f"processes={asked}: {there}; give 0 or more, and no more than there are GPUs")
    return min(asked or devices or len(os.sched_getaffinity(0)), sum(len(split.videos) for split in splits))


def predict(work: Prediction, processes: int) -> Iterator[Predicted]:
    """Predict what is not on disk yet and yield what each video added, as it is done.

    One process is this one; more are spawned. Raises LaunchError where one dies or stops with a message, PredictionBug
    where one has a bug; the others are then stopped. What is on disk by then is whole and is kept.
    """
    total = sum(len(split.videos) for split in work.splits)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    label = f"segment, {processes} process{'es' if processes > 1 else ''} on {device}"
    with tqdm(total=total, desc=label, unit="video") as bar:
        for done in _alone(work) if processes == 1 else _together(work, processes):
            bar.update(1)
            yield done


def _alone(work: Prediction) -> Iterator[Predicted]:
    return _part(work, 0, 1)


def _part(work: Prediction, index: int, processes: int) -> Iterator[Predicted]:
    """Videos index, index + processes, ... of all splits in a row: short splits are spread over all processes too."""
    # Here, not above: a process that only starts others needs no model.
    from glus.evaluation.inference import load, predict_split

    device = torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")
    loaded = load(work.checkpoint, device)
    videos = [(split, video) for split in work.splits for video in range(len(split.videos))]
    for split, video in videos[index::processes]:
        part = (video, len(split.videos))
        yield predict_split(loaded, split, work.masks, work.config, device, part=part, progress=False)


def _together(work: Prediction, processes: int) -> Iterator[Predicted]:
    with _started(work, processes) as started:
        running = dict(started)
        while running:
            for pipe in multiprocessing.connection.wait(list(running)):
                assert isinstance(pipe, Connection)
                try:
                    news: _News = pipe.recv()
                except EOFError:
                    _check_end(running.pop(pipe))
                    continue
                if news.what == "told":
                    raise LaunchError(news.text)
                if news.what == "bug":
                    raise PredictionBug(news.text)
                yield news.done


@contextmanager
def _started(work: Prediction, processes: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Processes by the pipe that they tell their news through; none runs any more afterwards."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads, and CUDA
    started: dict[Connection, SpawnProcess] = {}
    try:
        for index in range(processes):
            ours, theirs = spawn.Pipe(duplex=False)
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
    if code == 0:
        return
    ended = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
    lack = " (most often for lack of memory: give fewer `processes`)" if code == -signal.SIGKILL else ""
    raise LaunchError(
        f"a process that predicts {ended}{lack}; the others were stopped. The same command goes on from what is done"
    )


def work_part(work: Prediction, index: int, processes: int, pipe: Connection) -> None:
    """A spawned process: predicts its part and tells through the pipe."""
    from glus.launch.cli import TOLD

    # Ctrl-C goes to all; the one that the person started tells of it and stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_libraries()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    try:
        for done in _part(work, index, processes):
            pipe.send(_News("done", done))
    except TOLD as error:
        pipe.send(_News("told", text=str(error)))
    except Exception:  # noqa: BLE001 -- told by the process that started this one
        pipe.send(_News("bug", text=traceback.format_exc()))
    finally:
        pipe.close()
        sys.stdout.flush()
