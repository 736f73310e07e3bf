"""Starts the ranks of a training on this machine, or becomes one where a launcher already did."""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from glus.launch.configuration import load_config, to_yaml
from glus.launch.errors import LaunchError
from glus.launch.quiet import quiet_libraries
from glus.training.config import RunConfig

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

TOLD, BUG, INTERRUPTED = 2, 1, 130
#: Seconds that ranks have to end by themselves once one of them failed.
GRACE = 10


def train(config: RunConfig) -> int:
    """Train with `config.ranks` ranks on this machine; under torchrun or srun, as the rank that the environment names.

    Returns the exit code: 0, or 1 where a rank ended by a bug, whose traceback was printed.
    Raises LaunchError where a rank stopped with a message or was killed; it is told once, however many ranks found it.
    """
    if "WORLD_SIZE" in os.environ:
        return _one_rank(config)
    ranks = config.ranks or _devices()
    _check_devices(ranks)
    resolved = Path(config.out) / "config.yaml"
    try:
        resolved.parent.mkdir(parents=True, exist_ok=True)
        resolved.write_text(to_yaml(config), encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"{resolved} cannot be written ({error.strerror}): choose another `out`") from error
    return _one_rank(config) if ranks == 1 else _many_ranks(resolved, ranks)


def main() -> int:
    """Entry of a rank started by `train`: python -m glus.launch.ranks CONFIG.yaml.

    What ends it is written to the file that torch elastic names; `train` tells the first of them.
    """
    signal.signal(signal.SIGTERM, _stop)
    quiet_libraries()
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    from glus.launch import cli

    handler = get_error_handler()
    handler.initialize()
    try:
        return _one_rank(load_config(RunConfig, Path(sys.argv[1]), []))
    except KeyboardInterrupt:
        return INTERRUPTED
    except cli.TOLD as error:
        handler.record_exception(error)
        return TOLD
    except Exception as error:  # noqa: BLE001 -- told by `train`, with its traceback
        handler.record_exception(error)
        return BUG


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _one_rank(config: RunConfig) -> int:
    from glus.training.distributed import Rank
    from glus.training.train import train as train_rank

    rank = Rank.from_environment()
    path = train_rank(config, rank)
    if rank.rank == 0:
        print(f"checkpoint: {path}")
    return 0


def _many_ranks(resolved: Path, ranks: int) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # It tells of a failed rank by process number; what follows here tells why.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="glus-ranks-") as folder:
        launch = elastic_launch(launch_settings(Path(folder), ranks), sys.executable)
        try:
            launch("-u", "-P", "-m", "glus.launch.ranks", str(resolved))
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            raise LaunchError(
                f"stopped by {error.sigval.name}; the same command goes on from the last checkpoint in "
                f"{resolved.parent}"
            ) from error
        except ChildFailedError as error:
            return _tell(_cause(error.failures.values()), resolved.parent)
    return 0


def launch_settings(folder: Path, ranks: int) -> "LaunchConfig":
    """How torch elastic starts `ranks` ranks on this machine, once; `folder` takes what ended them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=f"glus-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        monitor_interval=0.2,
        local_addr="127.0.0.1",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        shutdown_timeout=GRACE,
    )


def _cause(failures: Iterable["ProcessFailure"]) -> "ProcessFailure":
    """The failure that the others follow from: a rank that lost its peer fails too, and the rest are stopped."""

    def order(failure: "ProcessFailure") -> tuple[bool, bool, float]:
        stopped = failure.exitcode in (-signal.SIGTERM, INTERRUPTED)
        file = Path(failure.error_file)
        # A killed rank leaves no file; its time is that of its finding, which is a little later than its end.
        when = file.stat().st_mtime if file.is_file() else failure.timestamp - 1.0
        return failure.exitcode != TOLD, stopped, when

    return min(failures, key=order)


def _tell(failure: "ProcessFailure", out: Path) -> int:
    recorded: dict[str, Any] = {}
    if Path(failure.error_file).is_file():
        recorded = json.loads(Path(failure.error_file).read_text(encoding="utf-8"))["message"]
    if failure.exitcode == TOLD:
        raise LaunchError(recorded["message"].partition(": ")[2])
    if recorded:
        print(f"rank {failure.local_rank}:\n{recorded['extraInfo']['py_callstack']}", file=sys.stderr)
        return BUG
    ended = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
    lack = " (most often for lack of memory)" if failure.exitcode == -signal.SIGKILL else ""
    raise LaunchError(
        f"rank {failure.local_rank} {ended}{lack}; the others were stopped. "
        f"The same command goes on from the last checkpoint in {out}"
    )


def _devices() -> int:
    import torch

    return torch.cuda.device_count() or 1


def _check_devices(ranks: int) -> None:
    import torch

    if torch.cuda.is_available() and ranks > torch.cuda.device_count():
        raise LaunchError(
            f"ranks={ranks}, but this machine has {torch.cuda.device_count()} GPUs: set ranks to that or less"
        )


if __name__ == "__main__":
    sys.exit(main())
