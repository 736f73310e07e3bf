"""Work through a list of videos: in this process, or in several that share it as the ranks of a job do."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, spawn

from glus.common.atomic import disk_fault
from glus.common.cores import usable_cores
from glus.common.errors import LaunchError, UserError
from glus.common.processes import end_with_parent
from glus.common.progress import Progress
from glus.common.terminal import plain
from glus.evaluation.predict.model_source import Loaded, ModelSource
from glus.evaluation.predict.worklist import WorkItem, share
from glus.launch.quiet import quiet_libraries
from glus.training.devices import Kind, claim, gpu_count
from glus.training.distributed import Rank

USER_ERROR = 2
#: Seconds between two looks at the processes.
POLL = 0.5


class Work(Protocol):
    """What is to be done for each of `items`, on a GPU or the CPU. It can be pickled.

    `verb` is what a process does, for messages ("predicts"); `label` is the progress bar's ("segment").
    """

    @property
    def items(self) -> tuple[WorkItem, ...]: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def verb(self) -> str: ...

    @property
    def label(self) -> str: ...

    def worker(self, index: int) -> Callable[[WorkItem], object]:
        """Load the model for process `index` of this machine; what is returned does one item and records it."""
        ...


def open_model(
    source: ModelSource,
    kind: Kind,
    place: int,
    precision: Literal["bf16", "fp32"],
    post_optimise: Path | None = None,
    reference_gamma: bool = False,
    quiet: bool = False,
) -> tuple[Loaded, torch.device]:
    """Load the model of a process on the CPU or GPU `place`; print its notes, once in all ranks, unless `quiet`.

    Raises TrainingError, ModelError, DataError or EvaluationError.
    """
    device = torch.device("cuda", place) if kind == "cuda" else torch.device("cpu")
    claim(device)
    loaded = source.load(device, precision, post_optimise, reference_gamma)
    if not quiet and Rank.from_environment().rank == 0 and loaded.notes:
        print(plain("\n".join(loaded.notes)))
    return loaded, device


def processes_for(asked: int, videos: int, kind: Kind = "cpu") -> int:
    """`asked`, or for 0 one a GPU and on the CPU one a core; no more than there are videos, and at least 1.

    Raises LaunchError for a negative number, or more than one for each GPU.
    """
    devices = gpu_count(kind)
    if asked < 0 or (devices and asked > devices):
        there = f"this machine has {devices} GPUs" if devices else "0 takes one a core"
        raise LaunchError(f"processes={asked}: {there}; give 0 or more, and no more than there are GPUs")
    return max(1, min(asked or devices or usable_cores(), videos))


def processes_of_rank(asked: int, fresh: bool, rank: Rank, videos: int, kind: Kind) -> int:
    """Processes of this rank. Raises LaunchError for settings that several ranks cannot have."""
    if rank.ranks == 1:
        return processes_for(asked, videos, kind)
    if fresh:
        raise LaunchError(f"fresh=true with {rank.ranks} ranks: one would remove another's results; remove `out` first")
    if asked > 1:
        raise LaunchError(f"processes={asked} with {rank.ranks} ranks: each rank is one process; leave it 0")
    return 1


def work_through(work: Work, processes: int) -> None:
    """Do all items. One process is this one; more are spawned, and each takes its share.

    Raises LaunchError where a process stops with a message or is killed, torch's ProcessRaisedException where one has a
    bug; the others are then stopped. What is on disk by then is complete and is kept.
    """
    label = f"{work.label}, {processes} process{'es' if processes > 1 else ''} on {work.kind}"
    with Progress(total=len(work.items), desc=label, unit="video") as bar:
        if not work.items:
            return
        counts = _work_here(work, 0, work.items) if processes == 1 else _work_in_processes(work, processes)
        before = 0
        for done in counts:
            bar.update(done - before)
            before = done


def wait_for_all(
    items: Sequence[WorkItem], left: Callable[[Sequence[WorkItem]], Sequence[WorkItem]], minutes: float, results: str
) -> None:
    """Return when `left` leaves none of the items; `results` names what is waited for ("masks").

    Raises LaunchError where nothing new came for so long.
    """
    missing = left(items)
    since = time.monotonic()
    while missing:
        if time.monotonic() - since > 60 * minutes:
            raise LaunchError(
                f"{len(missing)} videos are without {results} and none came for {minutes:g} minutes, the first is "
                f"{missing[0].name}: a rank was killed or stopped. The same command skips finished videos and goes on"
            )
        time.sleep(min(2.0, 6 * minutes))
        now = left(missing)
        if len(now) < len(missing):
            since = time.monotonic()
        missing = now


def _work_here(work: Work, index: int, items: Sequence[WorkItem]) -> Iterator[int]:
    """Do items, and yield how many are done after each."""
    do = work.worker(index)
    for number, item in enumerate(items, 1):
        do(item)
        yield number


def _work_in_processes(work: Work, processes: int) -> Iterator[int]:
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
                f"a process that {work.verb} {ended}; the others were stopped. The same command skips finished videos "
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
    index: int, work: Work, processes: int, counts: MutableSequence[int], messages: "SimpleQueue[str]"
) -> None:
    """Do the share of one spawned process. A message for the user goes through `messages`."""
    # Ctrl-C goes to all; the process that the user started reports it and stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Else the same command, started again, would do the item at hand a second time next to this process.
    end_with_parent()
    quiet_libraries()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, usable_cores() // processes))
    try:
        for done in _work_here(work, index, share(work.items, index, processes)):
            counts[index] = done
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else disk_fault(error)
        if not message:
            raise
        messages.put(message)
        sys.exit(USER_ERROR)
