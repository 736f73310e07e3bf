"""A run that goes on with another number of ranks: 1, then 2, then 1, beside one that never stopped."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from glus.launch.ranks import launch_settings
from glus.training import checkpoint
from glus.training.config import RunConfig
from glus.training.distributed import Rank
from glus.training.run_record import run_of_folder
from glus.training.stopping import StopFlag
from glus.training.tracking import find_runs
from glus.training.train import train

ALONE = Rank(0, 0, 1)
#: Two groups of parameters: DeepSpeed's universal checkpoint gives all groups the settings of the first.
FACTORS = 'optimizer.factors={"segmenter.*": 0.5}'


def one_step(config: RunConfig) -> None:
    """A rank of two: one step, then told to stop."""
    rank, flag = Rank.from_environment(), StopFlag()
    with flag.listening():
        if rank.rank == 1:  # not the first: they must agree
            os.kill(os.getpid(), signal.SIGUSR2)
        train(config, rank, flag)


@pytest.mark.timeout(300)
def test_ranks_one_two_one_see_the_same_batches_and_losses(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    from torch.distributed.launcher.api import elastic_launch

    settings = ("steps=3", FACTORS, "model.lora.dropout=0.1", "engine.contrast_together=1")
    whole = tiny_run(tmp_path / "whole", *settings)
    train(whole, ALONE)
    changing = tiny_run(tmp_path / "changing", *settings)
    flag = StopFlag()
    with flag.listening():
        os.kill(os.getpid(), signal.SIGUSR2)
        assert train(changing, ALONE, flag).name == "step-000001"
    (tmp_path / "elastic").mkdir()
    elastic_launch(launch_settings(tmp_path / "elastic", 2), one_step)(changing)
    newest = checkpoint.resolve(Path(changing.out))
    assert newest.name == "step-000002" and checkpoint.read_state(newest).ranks == 2
    assert train(changing, ALONE).name == "step-000003"
    names = [str(run_of_folder(Path(run.out))) for run in (whole, changing)]
    undisturbed, changed = find_runs(whole.tracking, names)
    for (step, wanted), (at, found) in zip(undisturbed.history["total"], changed.history["total"], strict=True):
        assert at == step and found == pytest.approx(wanted, rel=1e-4)
    assert not list(Path(changing.out).glob("checkpoints/.*"))
