"""Starts the ranks of a training on this machine, or becomes one where a launcher already did."""

import os
import sys
import tempfile
from pathlib import Path

from glus.launch.configuration import load_config, to_yaml
from glus.launch.errors import LaunchError
from glus.launch.quiet import quiet_libraries
from glus.training.config import RunConfig


def train(config: RunConfig) -> int:
    """Train with `config.ranks` ranks on this machine; under torchrun or srun, as the rank that the environment names.

    Returns the exit code: 0, or 2 where a rank stopped with a message.
    """
    if "WORLD_SIZE" in os.environ:
        return _one_rank(config)
    ranks = config.ranks or _devices()
    _check_devices(ranks)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    resolved = out / "config.yaml"
    resolved.write_text(to_yaml(config), encoding="utf-8")
    return _one_rank(config) if ranks == 1 else _many_ranks(resolved, ranks)


def main() -> int:
    """Entry of a rank started by `train`: python -m glus.launch.ranks CONFIG.yaml."""
    quiet_libraries()
    from glus.launch.cli import TOLD

    try:
        return _one_rank(load_config(RunConfig, Path(sys.argv[1]), []))
    except TOLD as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"glus train: {error}", file=sys.stderr)
        return 2


def _one_rank(config: RunConfig) -> int:
    from glus.training.distributed import Rank
    from glus.training.train import train as train_rank

    rank = Rank.from_environment()
    path = train_rank(config, rank)
    if rank.rank == 0:
        print(f"checkpoint: {path}")
    return 0


def _many_ranks(resolved: Path, ranks: int) -> int:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="glus-rendezvous-") as folder:
        settings = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=f"glus-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=0,
            monitor_interval=0.2,
            local_addr="127.0.0.1",
        )
        os.environ["TORCHELASTIC_ERROR_FILE"] = str(Path(folder) / "error.json")
        try:
            elastic_launch(settings, sys.executable)("-u", "-m", "glus.launch.ranks", str(resolved))
        except ChildFailedError as error:
            code = min((failure.exitcode for failure in error.failures.values()), default=1)
            codes = {failure.exitcode for failure in error.failures.values()}
            if 2 in codes:
                return 2
            raise LaunchError(
                f"a rank ended with exit code {code}; its traceback stands above, the run's folder is {resolved.parent}"
            ) from error
    return 0


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
