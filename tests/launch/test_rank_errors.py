"""What ends a rank is recorded completely or not at all, whatever interrupts the record."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from glus.launch.ranks import ranks
from glus.launch.ranks.attempts import Failure
from glus.launch.ranks.nodes import ALONE
from glus.training.stopping.error_file import ERROR_FILE, record_error

#: A rank that ends by an error, and takes a second from opening the record to writing it.
FAILS = """
import builtins, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as in all processes that the launcher starts
from glus.launch.ranks import ranks
def fails(config, stop):
    raise {error}("the cause")
def slow_open(file, *options, **named):
    stream = plain_open(file, *options, **named)
    if "error.json" in str(file):
        time.sleep(1)
    return stream
plain_open, builtins.open = builtins.open, slow_open
ranks._one_rank, ranks.load_config = fails, lambda *_: None
sys.exit(ranks.main())
"""


def failure_of(process: "subprocess.Popen[str]", file: Path) -> Failure:
    """What the launcher makes of a rank that has ended."""
    found = ProcessFailure(0, process.pid, process.returncode, str(file))
    return ranks._as_failure(found, ALONE, 1)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_rank_that_is_stopped_while_it_records_its_error_leaves_no_half_record(
    sent: signal.Signals, tmp_path: Path
) -> None:
    file = tmp_path / "error.json"
    words = [sys.executable, "-c", FAILS.format(error="ValueError"), "config.yaml"]
    process = subprocess.Popen(words, env={**os.environ, ERROR_FILE: str(file)}, stderr=subprocess.PIPE, text=True)
    # The launcher's signal: it comes from the parent, as soon as the record is begun.
    while not any(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(sent)
    _, printed = process.communicate(timeout=60)
    failure = failure_of(process, file)
    assert printed == ""
    if sent == signal.SIGKILL:
        assert not file.exists() and failure.cause.startswith("rank 0 was killed by SIGKILL")
    else:
        assert process.returncode == ranks.BUG
        assert (failure.kind, failure.cause) == ("bug", "ValueError: the cause")


def test_a_rank_that_is_interrupted_before_its_record_ends_as_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    words = [sys.executable, "-c", FAILS.format(error="KeyboardInterrupt"), "config.yaml"]
    done = subprocess.run(words, env={**os.environ, ERROR_FILE: str(file)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ranks.INTERRUPTED, "") and not file.exists()


def test_an_error_that_cannot_be_recorded_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ERROR_FILE, "/dev/null/error.json")
    record_error(ValueError("the cause"))
    printed = capsys.readouterr().err
    assert printed.startswith("/dev/null/error.json: cannot be written") and "ValueError: the cause" in printed


def test_a_record_holds_what_torch_elastic_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    record_error(ValueError("where no launcher names a file, none is written"))
    monkeypatch.setenv(ERROR_FILE, str(file))
    record_error(ValueError("a name that is no text: \udcff"))
    found = ProcessFailure(0, 1, 1, str(file))
    assert json.loads(file.read_text()) == found.error_file_data and found.timestamp > 0
    assert ranks._as_failure(found, ALONE, 1).cause == "ValueError: a name that is no text: \\udcff"


def test_a_killed_rank_is_the_cause_however_late_it_is_found(tmp_path: Path) -> None:
    """Its peer's record may be older than the moment at which the launcher finds the killed one."""
    file, rank = tmp_path / "error.json", [sys.executable, "-c", FAILS.format(error="RuntimeError"), "config.yaml"]
    rank[2] = rank[2].replace('"the cause"', '"[/gloo/transport/tcp/pair.cc:534] Connection closed by peer"')
    done = subprocess.run(rank, env={**os.environ, ERROR_FILE: str(file)}, check=False)
    assert done.returncode == ranks.LOST_PEER
    lost = ProcessFailure(0, 1, done.returncode, str(file))
    killed = ProcessFailure(1, 2, -signal.SIGKILL, str(tmp_path / "absent"))
    killed.timestamp = int(file.stat().st_mtime) + 60
    assert ranks._cause([lost, killed]) is killed
    stopped = ProcessFailure(2, 3, -signal.SIGTERM, str(tmp_path / "absent"))
    assert ranks._cause([stopped, lost]) is lost  # the cause is on another machine
