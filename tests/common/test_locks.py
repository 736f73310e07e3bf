"""One command at a time in one folder, whatever becomes of its holder."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glus.common.errors import InputError
from glus.common.locks import LOCK, exclusive, exclusive_file, holder

HOLD = """
import sys, time
from pathlib import Path
from glus.common.locks import exclusive
with exclusive(Path(sys.argv[1]), "glus prepare"):
    print("held", flush=True)
    {then}
"""


def start_holder(folder: Path, then: str = "time.sleep(600)") -> subprocess.Popen[str]:
    held = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD.format(then=then), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert held.stdout is not None and held.stdout.readline() == "held\n"
    return held


def test_the_second_is_refused_at_once_with_host_process_and_command_of_the_first(tmp_path):
    held = start_holder(tmp_path / "out")
    try:
        began = time.monotonic()
        with pytest.raises(InputError) as caught, exclusive(tmp_path / "out", "glus train"):
            pass
        assert time.monotonic() - began < 2
        place = f"glus prepare on {socket.gethostname()}, process {held.pid}"
        assert str(caught.value).startswith(f"{tmp_path / 'out'} is in use by {place}: wait for it")
        found = holder(tmp_path / "out" / LOCK)
        assert found is not None and found.process == held.pid
    finally:
        held.kill()
        held.wait()
    # Killed with -9: its file is still there and means nothing.
    assert (tmp_path / "out" / LOCK).is_file() and holder(tmp_path / "out" / LOCK) is None
    with exclusive(tmp_path / "out", "glus train"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_child_that_outlives_the_holder_does_not_keep_the_lock(tmp_path):
    # One that is forked without exec, as multiprocessing forks, and one that is a program of its own.
    then = """
    import os, subprocess
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    other = subprocess.Popen(["sleep", "60"])
    print(child, other.pid, flush=True)
    time.sleep(600)"""
    held = start_holder(tmp_path, then)
    assert held.stdout is not None
    children = [int(word) for word in held.stdout.readline().split()]
    held.kill()
    held.wait()
    try:
        for child in children:
            os.kill(child, 0)  # it lives
        with exclusive(tmp_path, "glus train"):
            pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def leave_the_block(folder: Path) -> None:
    with exclusive(folder, "glus prepare"):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            assert (folder / LOCK).is_file()
            with pytest.raises(InputError), exclusive(folder, "glus train"):
                pass
    if not child:
        os._exit(0)


@pytest.mark.slow
def test_a_forked_child_that_leaves_the_block_does_not_free_the_folder(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=leave_the_block, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_a_thread_of_the_same_process_is_refused_too_and_the_first_stays_locked(tmp_path):
    with exclusive(tmp_path, "glus train"):
        for _ in range(2):
            with pytest.raises(InputError, match=f"process {os.getpid()}"), exclusive(tmp_path, "glus train"):
                pass
    with exclusive(tmp_path, "glus train"):
        pass


def test_folders_that_were_made_and_stay_empty_are_removed_others_stay(tmp_path):
    with exclusive(tmp_path / "a" / "b", "glus prepare"):
        (tmp_path / "a" / "kept").touch()
    assert not (tmp_path / "a" / "b").exists() and (tmp_path / "a" / "kept").is_file()
    with pytest.raises(ValueError), exclusive(tmp_path / "c", "glus prepare"):
        raise ValueError
    assert not (tmp_path / "c").exists()


def test_a_file_has_a_lock_of_its_own_next_to_it(tmp_path):
    with exclusive_file(tmp_path / "one.zip", "glus package"), exclusive_file(tmp_path / "two.zip", "glus package"):
        with pytest.raises(InputError, match="glus package"), exclusive_file(tmp_path / "one.zip", "glus package"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "closed"])
def test_what_cannot_be_locked_is_an_error_in_one_line_and_never_hangs(tmp_path, kind):
    if kind == "fifo":
        os.mkfifo(tmp_path / LOCK)
    elif kind == "link":
        (tmp_path / LOCK).symlink_to(tmp_path / "other")
    elif kind == "folder":
        (tmp_path / LOCK).mkdir()
    else:
        (tmp_path / "file").touch()
    folder = tmp_path / "file" if kind == "closed" else tmp_path
    with pytest.raises(InputError, match=re.escape(str(folder))), exclusive(folder, "glus prepare"):
        pass
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("below", [".", "new", "new/run"])
def test_a_file_where_a_folder_is_needed_is_named_itself(tmp_path, below):
    (tmp_path / "keys.json").touch()
    message = f"^{tmp_path}/keys.json is not a folder, so nothing can be written below it: choose another folder$"
    with pytest.raises(InputError, match=message), exclusive(tmp_path / "keys.json" / below, "glus segment"):
        pass
    assert [place.name for place in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.slow
def test_a_requeued_job_waits_for_its_own_lock_on_a_lost_machine_and_for_no_other(tmp_path, monkeypatch):
    import glus.common.locks as locks

    monkeypatch.setattr(locks, "LEASE_SECONDS", 30.0)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    held = start_holder(tmp_path, "time.sleep(3)")
    monkeypatch.setattr(socket, "gethostname", lambda: "another-node")
    with pytest.raises(InputError, match="in use"), exclusive(tmp_path, "glus train"):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with exclusive(tmp_path, "glus train"):
        pass
    held.wait()
