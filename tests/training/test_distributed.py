"""Who am I: read from what torchrun or SLURM sets."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import torch

from glus.common.errors import TrainingError
from glus.training.distributed import STORE, Rank, join_ranks, lost_ranks
from tests.forked import run_processes
from tests.running import listening


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_without_a_launcher_a_process_is_alone() -> None:
    assert Rank.from_environment() == Rank(0, 0, 1)


def test_a_launcher_says_which_rank_it_is(environment: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        environment.setenv(name, value)
    assert Rank.from_environment() == Rank(rank=5, local=1, ranks=8)


@pytest.mark.parametrize(("gpus", "fits"), [(0, True), (2, True), (1, False)])
def test_more_ranks_than_gpus_are_refused_by_every_rank_that_torchrun_started(
    environment: pytest.MonkeyPatch, gpus: int, fits: bool
) -> None:
    environment.setenv("LOCAL_WORLD_SIZE", "2")
    for local in (0, 1):
        rank = Rank(2 + local, local, 4)
        with contextlib.nullcontext() if fits else pytest.raises(TrainingError, match="2 ranks on this .* has 1 GPUs"):
            rank.check_device(gpus)


def test_without_its_number_of_ranks_the_rank_beyond_the_gpus_tells(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("LOCAL_WORLD_SIZE", raising=False)
    Rank(0, 0, 2).check_device(1)
    with pytest.raises(TrainingError, match="2 ranks on this machine, which has 1 GPUs: start one a GPU"):
        Rank(1, 1, 2).check_device(1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"RANK": "5"}, "RANK=5, LOCAL_RANK=None, WORLD_SIZE=None"),
        ({"RANK": "5", "LOCAL_RANK": "one", "WORLD_SIZE": "8"}, "LOCAL_RANK=one"),
        ({"RANK": "8", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, "RANK=8, LOCAL_RANK=0, WORLD_SIZE=8"),
    ],
)
def test_half_an_environment_is_refused(environment: pytest.MonkeyPatch, given: dict[str, str], told: str) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(TrainingError, match="a rank needs RANK, LOCAL_RANK and WORLD_SIZE") as error:
        Rank.from_environment()
    assert told in str(error.value)


#: Of two ranks, in turn.
TEXTS = [["", "a\0b", "ü" * 70_000], ["犬", "", "x"]]


def one_of_two(number: int, folder: Path) -> None:
    os.environ |= {STORE: f"{folder}/store", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "none-such"}
    rank = Rank(number, number, 2)
    join_ranks(rank)
    found = [rank.gather_texts(text) for text in TEXTS[number]]
    assert found == [list(each) for each in zip(*TEXTS, strict=True)]
    assert {address for address, _ in listening(os.getpid())} == {"127.0.0.1"}
    torch.distributed.destroy_process_group()


@pytest.mark.ranks
def test_ranks_of_one_machine_meet_in_a_file_and_gather_texts(tmp_path: Path) -> None:
    run_processes(2, one_of_two, tmp_path)


#: Rank 1 ends once both have met, and rank 0 reports what that raises.
LOSES = """
import os, sys, torch
from glus.training.distributed import Rank, join_ranks, lost_ranks
rank = Rank(int(sys.argv[1]), 0, 2, on_cpu=True)
join_ranks(rank)
torch.distributed.barrier()
if rank.rank == 1:
    os._exit(0)
try:
    torch.distributed.barrier()
except RuntimeError as error:
    print(lost_ranks(error), error)
"""


@pytest.mark.ranks
def test_an_error_by_a_rank_that_has_ended_is_known(tmp_path: Path, warm_python: Path) -> None:
    settings = {**os.environ, STORE: str(tmp_path / "store")}
    begun = [
        subprocess.Popen([warm_python, "-c", LOSES, number], env=settings, stdout=subprocess.PIPE, text=True)
        for number in ("0", "1")
    ]
    printed, _ = begun[0].communicate(timeout=60)
    begun[1].communicate(timeout=60)
    assert printed.startswith("True ") and "peer" in printed
    assert lost_ranks(torch.distributed.DistBackendError("NCCL error"))
    assert not lost_ranks(RuntimeError("PytorchStreamWriter failed")) and not lost_ranks(OSError("/gloo/"))
