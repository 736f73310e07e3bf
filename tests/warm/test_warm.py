"""A program that a test starts by tests/warm behaves as one that Python starts."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

SHOWS = """
import json, os, signal, sys
print(json.dumps([
    sys.argv, os.getcwd(), os.environ["SHOWN"], sys.path, sys.stdin.read(), __name__, sys.prefix, sys.stdout.isatty(),
    sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))), os.environ.get("PYTHONPATH"),
    sorted(name for name in os.listdir("/proc/self/fd") if int(name) < 3 or os.path.exists(f"/proc/self/fd/{name}")),
]))
print("an error", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def both(warm_python: Path) -> Callable[..., tuple[Any, Any]]:
    """What a function gives with Python, and with the program that stands for it."""
    return lambda function: (function(sys.executable), function(str(warm_python)))


@pytest.mark.parametrize("options", [["-c", SHOWS], ["-P", "-u", "-c", SHOWS]])
def test_a_program_has_the_words_folder_variables_and_files_that_it_is_given(
    options: list[str], both: Callable[..., tuple[Any, Any]], tmp_path: Path
) -> None:
    inherited, other = os.pipe()
    environment = os.environ | {"SHOWN": "an 'odd' \n value", "PYTHONPATH": "/first:/second"}

    def shown(python: str) -> tuple[object, ...]:
        done = subprocess.run(
            [python, *options, "one", "--two", "a b\n"],
            input="given",
            cwd=tmp_path,
            env=environment,
            pass_fds=(inherited,),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    usual, warm = both(shown)
    os.close(inherited)
    os.close(other)
    assert warm == usual and usual[0] == 7 and usual[2] == "an error\n"


def test_a_command_prints_and_ends_the_same(both: Callable[..., tuple[Any, Any]], tmp_path: Path) -> None:
    def printed(python: str) -> tuple[object, ...]:
        words = [python, "-P", "-m", "glus.launch.cli", "train", "none.yaml", "steps=3"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    usual, warm = both(printed)
    assert warm == usual and usual[0] == 2 and usual[2].startswith("glus train: ")


def test_an_error_keeps_its_traceback(both: Callable[..., tuple[Any, Any]]) -> None:
    def ended(python: str) -> tuple[int, str]:
        done = subprocess.run([python, "-c", "1 / 0"], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr.splitlines()[-1]

    usual, warm = both(ended)
    assert warm == usual == (1, "ZeroDivisionError: division by zero")


WAITS = "import signal, time; {}; print('there', flush=True); time.sleep(600)"


def test_signals_arrive_and_end_it(both: Callable[..., tuple[Any, Any]]) -> None:
    def ended(python: str, number: int, does: str) -> tuple[int, str]:
        words = [python, "-c", WAITS.format(does)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "there\n"
            process.send_signal(number)
            return process.wait(), process.stdout.read()

    handled = "signal.signal(signal.SIGUSR2, lambda *_: (print('heard', flush=True), exit(5)))"
    for number, does, due in (
        (signal.SIGUSR2, handled, (5, "heard\n")),
        (signal.SIGTERM, "0", (-signal.SIGTERM, "")),
        (signal.SIGKILL, "0", (-signal.SIGKILL, "")),
    ):
        usual, warm = both(lambda python, number=number, does=does: ended(python, number, does))
        assert warm == usual == due


def test_a_signal_of_its_starter_comes_from_its_parent(both: Callable[..., tuple[Any, Any]]) -> None:
    """Ranks end at once by SIGTERM of their launcher and save by that of any other process."""
    code = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); print('there', flush=True);"
        "found = signal.sigwaitinfo({signal.SIGTERM}); print(found.si_pid == os.getppid(), flush=True)"
    )

    def heard(python: str, *sender: str) -> str:
        with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "there\n"
            if sender:
                subprocess.run([*sender, str(process.pid)], check=True)
            else:
                process.terminate()
            return process.stdout.read()

    assert both(heard) == ("True\n", "True\n")
    assert both(lambda python: heard(python, "kill", "-TERM")) == ("False\n", "False\n")


def test_it_ends_with_the_process_that_started_it_and_with_its_own_kill(warm_python: Path) -> None:
    shows = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    starts = f"import subprocess; subprocess.run([{str(warm_python)!r}, '-c', {shows!r}])"
    for words in ([sys.executable, "-c", starts], [str(warm_python), "-c", shows]):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            found = psutil.Process(int(process.stdout.readline()))
            process.kill()
            found.wait(30)


def _squared(number: int) -> tuple[int, bool, bool]:
    parent = multiprocessing.parent_process()
    return number**2, "deepspeed" in sys.modules, parent is not None and parent.pid == os.getppid()


def test_processes_of_multiprocessing_have_what_was_imported(warm: None) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_squared, [2, 3]) == [(4, True, True), (9, True, True)]


def test_it_takes_no_time_to_import(warm_python: Path) -> None:
    code = "import sys; print('deepspeed' in sys.modules, 'glus.training.train' in sys.modules)"
    assert subprocess.check_output([warm_python, "-c", code], text=True) == "True True\n"
