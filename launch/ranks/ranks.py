"""Starts the ranks of a training on this machine, alone or as one machine of a job, or becomes a rank of torchrun's."""

import faulthandler
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glus.common.atomic import write_atomic
from glus.common.errors import InputError, LaunchError, UserError
from glus.common.imports import quick_imports
from glus.common.locks import exclusive
from glus.common.processes import end_with_parent
from glus.common.terminal import plain
from glus.common.urls import hide_secrets
from glus.launch.config.configuration import load_config, to_yaml
from glus.launch.quiet import quiet_libraries
from glus.launch.ranks.attempts import Failure, record_failure
from glus.launch.ranks.nodes import ALONE, Nodes
from glus.launch.ranks.signals import INTERRUPTED, OF_ELASTIC, listen_as_rank, passing_on_signals
from glus.training.run_config import RunConfig
from glus.training.stopping.error_file import record_error
from glus.training.stopping.stopping import StopFlag, read_stopped
from glus.training.stopping.watchdog import HUNG

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

USER_ERROR, BUG = 2, 1
#: Exit code of a rank whose communication broke: nearly always because another rank has ended.
LOST_PEER = 3
#: Exit code of a run that was stopped before its last step (EX_TEMPFAIL of sysexits.h).
STOPPED = 75
#: Seconds in which the launchers of all machines must have found each other.
MEET = 300
#: Seconds that ranks have to end by themselves once one of them failed (30 with torch 2.10 and 2.11).
GRACE = 10


def train(config: RunConfig) -> int:
    """Train with `config.ranks` ranks on this machine; in a job of several machines, with those of all of them.

    Under torchrun, as the rank that the environment names. Returns the exit code: 0; STOPPED where the run was
    stopped before its last step, outside of a job; 1 where a rank ended by a bug, whose traceback was printed.
    Raises InUseError where another run is at work in `out`, LaunchError where a rank stopped with a message or was
    killed; it is printed once, however many ranks raised it.
    """
    # One process holds the folder for all ranks: the first of torchrun's, or the launcher on the first machine.
    if "WORLD_SIZE" in os.environ:
        with _held(Path(config.out), os.environ.get("RANK") == "0"):
            return _one_rank(config, None)
    nodes = Nodes.from_environment()
    out = Path(config.out)
    _check_out(out)
    # Before torch is imported: a second run is refused at once.
    with _held(out, nodes.number == 0):
        ranks = _ranks_here(config)
        code = _one_rank(config, None) if ranks == 1 and nodes.alone else _many_ranks(config, ranks, nodes)
    stopped = read_stopped(out)
    if code or stopped is None or not nodes.alone:
        return code  # a job reads for itself that it was stopped (attempts.py): to srun an exit code is a failure
    print(
        f"stopped after step {stopped.step} of {stopped.steps} ({stopped.cause}); the same command goes on from there"
    )
    return STOPPED


def _held(out: Path, first: bool) -> AbstractContextManager[None]:
    """Hold OUT, so that no two runs write into one. Raises InUseError where another run does."""
    return exclusive(out, "glus train") if first else nullcontext()


def main() -> int:
    """Entry of a rank started by `train`: python -m glus.launch.ranks.ranks CONFIG.yaml OUT.

    OUT is for those who list processes.

    What ends it is written to the file that torch elastic names; `train` prints the first of them.
    """
    end_with_parent()
    stop = StopFlag()
    listen_as_rank(stop)
    quiet_libraries()
    if sys.stderr:
        faulthandler.enable()
    try:
        try:
            return _one_rank(load_config(RunConfig, Path(sys.argv[1]), []), stop)
        except Exception as error:  # noqa: BLE001 -- `train` prints it, with its traceback
            # The launcher interrupts the ranks that are left: this one completes its record first.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            record_error(error)
            if isinstance(error, UserError):
                return USER_ERROR
            from glus.training.distributed import lost_ranks  # here: it brings torch

            return LOST_PEER if lost_ranks(error) else BUG
    except KeyboardInterrupt:
        return INTERRUPTED


def _one_rank(config: RunConfig, stop: StopFlag | None) -> int:
    with quick_imports():
        from glus.training.distributed import Rank
        from glus.training.train import train as train_rank

    rank = Rank.from_environment()
    path = train_rank(config, rank, stop, lambda: _write_config(config))
    if rank.rank == 0:
        print(plain(f"checkpoint: {path}"))
    return 0


def _write_config(config: RunConfig) -> None:
    """OUT/config.yaml, once a training is known to be able to begin."""
    file = Path(config.out) / "config.yaml"
    try:
        write_atomic(file, to_yaml(config).encode())
    except InputError as error:
        raise LaunchError(str(error)) from error


def _check_out(out: Path) -> None:
    """Raises LaunchError where OUT/config.yaml could not be written, and writes nothing."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if os.path.lexists(folder))
    reason = "Not a directory" if not there.is_dir() else "Permission denied"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise LaunchError(f"{out / 'config.yaml'} cannot be written ({reason}): choose another `out`")


def _many_ranks(config: RunConfig, ranks: int, nodes: Nodes) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # It names a failed rank by its process number; what follows here says why.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="glus-ranks-") as folder, passing_on_signals():
        launch = elastic_launch(launch_settings(Path(folder), ranks, nodes), sys.executable)
        try:
            resolved = Path(folder) / "config.yaml"
            resolved.write_text(to_yaml(config), encoding="utf-8")
            launch("-u", "-P", "-m", "glus.launch.ranks.ranks", str(resolved), config.out)
        except SignalException as error:
            raise KeyboardInterrupt from error
        except ChildFailedError as error:
            failure = _as_failure(_cause(error.failures.values()), nodes, ranks)
            if not nodes.alone:
                record_failure(Path(config.out), failure)
            return _report(failure, Path(config.out))
    return 0


def launch_settings(folder: Path, ranks: int, nodes: Nodes = ALONE) -> "LaunchConfig":
    """How torch elastic starts `ranks` ranks on this machine, once; `folder` takes what ended them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    from glus.launch.ranks.rendezvous import register

    nodes = replace(nodes, name=nodes.name or f"glus-{os.getpid()}")
    newer = known_settings(LaunchConfig, shutdown_timeout=GRACE)  # absent before torch 2.12
    return LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=ranks,
        run_id=nodes.name,
        rdzv_backend=register(),
        rdzv_endpoint=nodes.endpoint,
        rdzv_configs={"nodes": nodes, "file": str(folder / "store"), "wait": MEET},
        max_restarts=0,
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        signals_to_handle=OF_ELASTIC,
        **newer,
    )


def known_settings(kind: "type[DataclassInstance]", **settings: Any) -> dict[str, Any]:
    """Return those settings that a dataclass of a library has fields for: older releases have fewer."""
    there = {field.name for field in fields(kind)}
    return {name: value for name, value in settings.items() if name in there}


def _cause(failures: Iterable["ProcessFailure"]) -> "ProcessFailure":
    """The failure that the others follow from: a rank that lost its peer fails too, and the rest are stopped."""

    def order(failure: "ProcessFailure") -> tuple[bool, bool, bool, float]:
        stopped, lost = failure.exitcode in (-signal.SIGTERM, INTERRUPTED), failure.exitcode == LOST_PEER
        file = Path(failure.error_file)
        # A killed rank leaves no file; its time is that of its finding, which is a little later than its end.
        when = file.stat().st_mtime if file.is_file() else failure.timestamp - 1.0
        return failure.exitcode != USER_ERROR, stopped, lost, when

    return min(failures, key=order)


def _as_failure(found: "ProcessFailure", nodes: Nodes, ranks: int) -> Failure:
    # A text where the rank left no file: then its exit code says what is known.
    message = found.error_file_data["message"]
    recorded: dict[str, Any] = message if isinstance(message, dict) else {}
    rank = nodes.number * ranks + found.local_rank
    if found.exitcode in (USER_ERROR, HUNG) and recorded:
        text = hide_secrets(recorded["message"].partition(": ")[2])
        return Failure(nodes.host, rank, "told" if found.exitcode == USER_ERROR else "hung", text)
    if recorded:
        return Failure(
            nodes.host, rank, "bug", *map(hide_secrets, (recorded["message"], recorded["extraInfo"]["py_callstack"]))
        )
    ended = f"was killed by {found.signal_name()}" if found.exitcode < 0 else f"ended with {found.exitcode}"
    advice = " (most often out of memory)" if found.exitcode == -signal.SIGKILL else ""
    return Failure(nodes.host, rank, "killed", f"rank {rank} {ended}{advice}")


def _report(failure: Failure, out: Path) -> int:
    if failure.kind == "bug":
        print(plain(f"rank {failure.rank}:\n{failure.traceback}"), file=sys.stderr)
        return BUG
    if failure.kind == "told":
        raise LaunchError(failure.cause)
    raise LaunchError(
        f"{failure.cause}; the others were stopped. The same command goes on from the last checkpoint in {out}"
    )


def _ranks_here(config: RunConfig) -> int:
    """Ranks of this machine. Raises TrainingError where it should have GPUs and has none, LaunchError for too many."""
    from glus.training.devices import choose_device, gpu_count

    gpus = gpu_count(choose_device(config.engine.device))
    if 0 < gpus < config.ranks:
        raise LaunchError(f"ranks={config.ranks}, but this machine has {gpus} GPUs: set ranks to that or less")
    return config.ranks or gpus or 1


if __name__ == "__main__":
    sys.exit(main())
