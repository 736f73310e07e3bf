"""What a job does when its training ended: done, again, back into the queue, or given up with one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from glus.common.errors import LaunchError
from glus.launch.ranks.attempts import (
    AGAIN,
    ATTEMPTS,
    DONE,
    ENDED,
    FAILED,
    FAILURES,
    REQUEUE,
    Failure,
    decide,
    record_failure,
)
from glus.training.checkpoints.checkpoint import name_of
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import Cause, read_stopped, record_stop

KILLED = Failure("n2", 1, "killed", "rank 1 was killed by SIGKILL")
LOST_PEER = Failure("n1", 0, "bug", "RuntimeError: Connection\nreset by peer", "Traceback ...")
HUNG = Failure("n1", 0, "hung", "rank 0 did nothing for 1200 s (hang_minutes)")


@pytest.fixture
def run(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> RunConfig:
    """A run of ten steps, before its first checkpoint."""
    return tiny_run(tmp_path / "run", "steps=10")


def at_step(run: RunConfig, step: int) -> None:
    folder = Path(run.out) / "checkpoints"
    (folder / name_of(step)).mkdir(parents=True)
    (folder / "latest").write_text(name_of(step), encoding="utf-8")


def test_a_run_with_all_its_steps_is_done(run: RunConfig) -> None:
    at_step(run, 10)
    assert decide(run, 0, 3).code == DONE
    assert not (Path(run.out) / ATTEMPTS).exists()


@pytest.mark.parametrize(
    ("cause", "code"), [(Cause.SIGTERM, REQUEUE), (Cause.USR2, REQUEUE), (Cause.STOP_FILE_END, ENDED)]
)
def test_a_run_that_was_told_to_stop_goes_back_into_the_queue_or_ends(run: RunConfig, cause: Cause, code: int) -> None:
    at_step(run, 4)
    for _ in range(9):  # however often: that is no failure
        record_stop(Path(run.out), cause, 4, 10)
        decision = decide(run, 0, 3)
        assert decision.code == code and decision.words == f"stopped after step 4 of 10 by {cause.words}"
        assert read_stopped(Path(run.out)) is None


@pytest.mark.parametrize("code", [128 + 15, 128 + 12])
def test_a_stop_before_the_launchers_listened_is_no_failure(run: RunConfig, code: int) -> None:
    for _ in range(9):
        decision = decide(run, code, 3)
        assert (decision.code, decision.words) == (REQUEUE, "stopped at step 0 before it had started")
    assert not any(entry["failed"] for entry in json.loads((Path(run.out) / ATTEMPTS).read_text(encoding="utf-8")))


def test_a_dead_rank_is_the_cause_and_its_peers_loss_is_not(run: RunConfig) -> None:
    for failure in (LOST_PEER, KILLED):
        record_failure(Path(run.out), failure)
    decision = decide(run, 1, 3)
    assert decision.code == AGAIN
    assert decision.words == "n2: rank 1 was killed by SIGKILL (1 of at most 3 failures in a row at step 0)"
    assert not list((Path(run.out) / FAILURES).iterdir())


def test_without_progress_it_is_given_up_with_the_cause_on_one_line(run: RunConfig) -> None:
    codes = []
    for step in (2, None, None, 5, None, None, None):
        if step:
            at_step(run, step)
        record_failure(Path(run.out), LOST_PEER)
        decision = decide(run, 1, 3)
        codes.append(decision.code)
    assert codes == [AGAIN] * 6 + [FAILED]
    assert decision.words == (
        "4 attempts ended at step 5 without a new checkpoint; the last: n1: RuntimeError: Connection reset by peer"
    )
    history = json.loads((Path(run.out) / ATTEMPTS).read_text(encoding="utf-8"))
    assert [entry["step"] for entry in history] == [2, 2, 2, 5, 5, 5, 5]


def test_what_a_person_must_mend_is_not_tried_again(run: RunConfig) -> None:
    record_failure(Path(run.out), KILLED)
    record_failure(Path(run.out), Failure("n1", 0, "told", "step 3: total is not finite"))
    decision = decide(run, 2, 3)
    assert (decision.code, decision.words) == (FAILED, "n1: step 3: total is not finite")


def test_a_hang_is_tried_again_and_a_lost_machine_goes_to_the_scheduler(run: RunConfig) -> None:
    record_failure(Path(run.out), HUNG)
    assert decide(run, 1, 3).code == AGAIN
    lost = decide(run, 137, 3)
    assert lost.code == REQUEUE and "srun ended with 137; no machine reported why: one was lost" in lost.words


def test_a_record_that_cannot_be_read_is_told(run: RunConfig) -> None:
    Path(run.out).mkdir()
    (Path(run.out) / ATTEMPTS).write_text("[{", encoding="utf-8")
    with pytest.raises(LaunchError, match=r"attempts\.json: broken JSON at .*; remove it"):
        decide(run, 1, 3)
