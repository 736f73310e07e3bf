"""Stopping: a signal or a file sets a flag, the run saves and ends, and the same command goes on from there."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glus.common.errors import TrainingError
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import (
    STOP,
    Cause,
    Due,
    StepDecider,
    StopFlag,
    forget_stop,
    read_stopped,
    record_stop,
)
from glus.training.tracking.recorded_runs import find_runs
from glus.training.train import train

ALONE = Rank(0, 0, 1)
TinyRun = Callable[..., RunConfig]


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGUSR2, Cause.USR2), (signal.SIGTERM, Cause.SIGTERM)])
def test_a_signal_sets_the_flag_and_does_nothing_else(number: int, cause: Cause) -> None:
    before = signal.getsignal(number)
    flag = StopFlag()
    with flag.listening():
        assert flag.cause == Cause.NONE
        os.kill(os.getpid(), number)
        assert flag.cause == cause
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", Cause.STOP_FILE),
        ("end\n", Cause.STOP_FILE_END),
        ("\ufeffend\r\n", Cause.STOP_FILE_END),  # an editor of Windows
        ("end" * 5000, Cause.STOP_FILE),
    ],
)
def test_a_stop_file_sets_the_flag_of_the_first_rank(text: str, cause: Cause, tmp_path: Path) -> None:
    (tmp_path / STOP).write_text(text, encoding="utf-8")
    first, other = StopFlag(), StopFlag()
    with first.watching(tmp_path), other.watching(None):
        assert (first.cause, other.cause) == (cause, Cause.NONE)
    record_stop(tmp_path, cause, step=7, steps=9)
    note = read_stopped(tmp_path)
    assert note is not None and (note.step, note.steps, note.again) == (7, 9, cause == Cause.STOP_FILE)
    assert not (tmp_path / STOP).exists()
    forget_stop(tmp_path)
    assert read_stopped(tmp_path) is None


def test_a_stop_file_that_is_a_pipe_stops_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / STOP)
    flag = StopFlag()
    with flag.watching(tmp_path):
        assert flag.cause == Cause.STOP_FILE
    (tmp_path / STOP).unlink()
    (tmp_path / STOP).symlink_to(tmp_path / "none")
    flag = StopFlag()
    with flag.watching(tmp_path):
        assert flag.cause == Cause.STOP_FILE


def test_a_note_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "stopped.json").write_text('{"step": 1}', encoding="utf-8")
    with pytest.raises(TrainingError, match=r"stopped\.json: .*; remove it"):
        read_stopped(tmp_path)


def test_a_checkpoint_is_due_by_steps_or_by_minutes() -> None:
    now = [0.0]
    due = Due(every=3, minutes=10, clock=lambda: now[0])
    assert [due.by_steps(done) for done in (1, 3, 6)] == [False, True, True]
    now[0] = 599
    assert not due.by_minutes()
    now[0] = 601
    assert due.by_minutes()
    due.saved()
    assert not due.by_minutes()
    never = Due(every=0, minutes=0, clock=lambda: 1e9)
    assert not never.by_steps(500) and not never.by_minutes()


@pytest.mark.slow
def test_the_last_step_is_an_end_and_no_stop(tiny_run: TinyRun, tmp_path: Path) -> None:
    flag = StopFlag()
    decider = StepDecider(tiny_run(tmp_path / "run", "steps=2"), ALONE, flag)
    with flag.listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert (decider.after(1).save, decider.after(1).stop) == (True, Cause.SIGTERM)
    assert (decider.after(2).save, decider.after(2).stop) == (True, Cause.NONE)


@pytest.mark.slow
def test_a_run_stopped_by_signal_and_by_file_ends_as_one_that_never_stopped(tiny_run: TinyRun, tmp_path: Path) -> None:
    whole = load_file(train(tiny_run(tmp_path / "whole" / "run", "steps=4"), ALONE) / checkpoint.WEIGHTS)
    config = tiny_run(tmp_path / "stopped" / "run", "steps=4")
    flag = StopFlag()
    with flag.listening():
        os.kill(os.getpid(), signal.SIGUSR2)  # told before it began: it takes one step
        assert train(config, ALONE, flag).name == "step-000001"
    out = Path(config.out)
    note = read_stopped(out)
    assert note is not None and (note.step, note.cause, note.again) == (1, "SIGUSR2", True)
    assert find_runs(config.tracking)[0].status == "KILLED"
    (out / STOP).write_text("end", encoding="utf-8")
    assert train(config, ALONE).name == "step-000002"
    note = read_stopped(out)
    assert note is not None and not note.again
    last = train(config, ALONE)
    assert last.name == "step-000004" and read_stopped(out) is None
    again = load_file(last / checkpoint.WEIGHTS)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    [record] = find_runs(config.tracking)
    assert record.status == "FINISHED"
    assert [step for step, _ in record.history["total"]] == [1, 2, 3, 4]
