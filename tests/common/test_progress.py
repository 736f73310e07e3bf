"""What a log file gets of a progress bar: whole lines, one a minute at most."""

import io
import subprocess
import sys

import pytest

from glus.common import progress as progress_module
from glus.common.progress import Progress, progress


class Clock:
    """Both clocks: tqdm's and ours."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(progress_module.time, "monotonic", lambda: self.now)
        patch.setattr("tqdm.std.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return Clock(monkeypatch)


def test_a_file_gets_a_line_a_minute_and_no_carriage_return(clock: Clock) -> None:
    file = io.StringIO()
    with Progress(total=600, desc="train", unit="step", file=file, mininterval=1.0) as bar:
        for _ in range(600):
            clock.now += 1
            bar.set_postfix(loss="0.5")
            bar.update()
    written = file.getvalue()
    assert "\r" not in written and "\x1b" not in written
    lines = written.splitlines()
    assert len(lines) == 10 and written.endswith("\n") and all(lines)
    assert lines[0].startswith("train: 10 %, 59 of 600 step") or lines[0].startswith("train: 10 %, 60 of 600 step")
    assert "loss=0.5" in lines[0]


def test_a_short_loop_is_one_line(clock: Clock) -> None:
    file = io.StringIO()
    assert list(progress([1, 2, 3], desc="pack", unit="mask", file=file)) == [1, 2, 3]
    assert file.getvalue().startswith("pack: 100 %, 3 of 3 mask, 00:00") and file.getvalue().count("\n") == 1


def test_a_loop_of_unknown_length_is_one_line(clock: Clock) -> None:
    file = io.StringIO()
    assert list(progress(iter([1, 2]), desc="read", unit="frame", file=file)) == [1, 2]
    assert file.getvalue().startswith("read: 2 frame, 00:00") and file.getvalue().count("\n") == 1


def test_a_line_comes_though_steps_are_slow(clock: Clock) -> None:
    file = io.StringIO()
    with Progress(total=3, desc="slow", file=file) as bar:
        for _ in range(3):
            clock.now += 300
            bar.update()
    assert file.getvalue().count("\n") == 3


def test_a_disabled_bar_writes_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    list(progress([1, 2], file=file, disable=True))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    list(progress([1, 2], file=file))
    assert file.getvalue() == ""


def test_a_terminal_gets_tqdms_bar(clock: Clock) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    list(progress(range(3), desc="pack", file=file))
    assert "\r" in file.getvalue() and "100%" in file.getvalue()


def test_bars_of_other_libraries_are_hidden_in_a_file() -> None:
    code = (
        "from glus.launch.quiet import quiet_libraries\nquiet_libraries()\n"
        "import subprocess, sys\nfrom tqdm.auto import tqdm\nfrom glus.common.progress import progress\n"
        "list(tqdm(range(3)))\n"
        "subprocess.run([sys.executable, '-c', 'from tqdm.auto import tqdm; list(tqdm(range(3)))'], check=True)\n"
        "list(progress(range(3), desc='ours'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("ours: 100 %, 3 of 3 it")


def test_an_escape_sequence_in_a_name_stays_a_text(clock: Clock) -> None:
    file = io.StringIO()
    with Progress(total=1, desc="segment \x1b]0;x\x07\u202e", file=file) as bar:
        clock.now += 90
        bar.update()
    assert r"segment \x1b]0;x\x07\u202e: 100 %" in file.getvalue()
