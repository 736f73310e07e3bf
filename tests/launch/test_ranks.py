"""`glus train`: what cannot work is told once, by exit code 2, and leaves no rank behind; a stop is obeyed whenever it
comes."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from glus.common.locks import exclusive
from glus.launch import cli
from glus.launch.ranks import ranks
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_runs
from tests.running import ranks_of, unused_ports, written
from tests.warm.starting import LAUNCHER

TinyRun = Callable[..., RunConfig]
#: As bits of a mask.
TERM, USR2 = 1 << (signal.SIGTERM - 1), 1 << (signal.SIGUSR2 - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("global_batch_size=3", "global_batch_size 3 does not divide into micro-batches of 2 on 1 ranks: make it a"),
        ("shards={folder}/none", "/none: this folder of shards does not exist; run `glus prepare` first"),
        ("sampling.mixture={{mevis/trian: 1}}", "no split mevis/trian here; did you mean mevis/train?"),
        ("sampling.mixture={{}}", "sampling.mixture is empty: name at least one split with a weight above 0"),
        ('trainable=["*lora_*", "segmentor.*"]', "trainable: 'segmentor.*' matches no parameter; there are "),
        ("tracking.uri=http://127.0.0.1:{port}", "no MLflow server can be reached at http://127.0.0.1:"),
        ("model.tokenizer={folder}/none.model", "no SentencePiece model at "),
        ("model.vision.patch_size=7", "image_size 32, patch_size 7 and pool 4 do not fit"),
        ("init_from={folder}", "holds no checkpoint: name a run folder or one of its checkpoints"),
        ("engine.precision=fp16", "engine.precision"),
        ("steps=-1", "steps=-1: it must be at least 0"),
        ("out=/dev/null/run", "/dev/null/run/config.yaml cannot be written (Not a directory): choose another `out`"),
    ],
)
def test_what_cannot_work_is_one_message(
    change: str, message: str, tiny_run: TinyRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(tiny_run(tmp_path / "run"), tmp_path)
    capfd.readouterr()
    assert cli.main(["train", str(config), change.format(folder=tmp_path, port=unused_ports(1)[0])]) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.startswith("glus train: ") and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_older_torch_is_given_only_settings_that_it_knows() -> None:
    """torch 2.10 and 2.11 have no `shutdown_timeout`; given that, no rank would start."""

    @dataclass
    class Older:
        monitor_interval: float = 0.1

    assert ranks.known_settings(Older, monitor_interval=0.2, shutdown_timeout=10) == {"monitor_interval": 0.2}


def test_a_second_training_into_one_folder_is_refused_at_once_and_leaves_its_config_alone(
    tiny_run: TinyRun, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tiny_run(tmp_path / "run"), tmp_path)
    with exclusive(tmp_path / "run", "glus train"):
        (tmp_path / "run" / "config.yaml").write_text("the first one's")
        assert cli.main(["train", str(config), "seed=7"]) == 2
        for rank in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(rank, "0")
        monkeypatch.setenv("WORLD_SIZE", "1")
        assert cli.main(["train", str(config)]) == 2
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2 and all(f"is in use by glus train on {socket.gethostname()}, process" in row for row in told)
    assert (tmp_path / "run" / "config.yaml").read_text() == "the first one's"


class Run:
    """A `glus train` on two ranks, as from a terminal."""

    def __init__(self, config: RunConfig, folder: Path, of_ranks: str = sys.executable) -> None:
        """`of_ranks` is the Python that its ranks are started by."""
        words = [sys.executable, "-c", LAUNCHER, of_ranks, "train", str(written(config, folder)), "ranks=2"]
        self.out = config.out
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)

    def ranks(self) -> dict[int, int]:
        """Process number of each rank that runs."""
        return ranks_of(self.out)

    def masks(self) -> dict[int, int]:
        """Thread of the launcher -> the signals that it blocks (bit N - 1 for signal N), the oldest first."""
        found = {}
        for folder in sorted(Path(f"/proc/{self.process.pid}/task").iterdir(), key=lambda place: int(place.name)):
            try:
                lines = (folder / "status").read_text().splitlines()
            except OSError:
                continue  # it ended while we looked
            [mask] = [line for line in lines if line.startswith("SigBlk:")]
            found[int(folder.name)] = int(mask.split()[1], 16)
        return found

    def tell(self, thread: int) -> None:
        """SIGTERM to one thread of the launcher: the kernel may choose any that does not block it."""
        assert ctypes.CDLL(None).tgkill(self.process.pid, thread, signal.SIGTERM) == 0

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr; nothing of it runs any more."""
        try:
            out, err = self.process.communicate(timeout=800)
        finally:
            left = self.ranks()
            for number in left.values():
                os.kill(number, signal.SIGKILL)
            self.process.kill()
        assert not left
        return self.process.returncode, out, err


@pytest.mark.ranks
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_what_both_ranks_find_is_told_once(tiny_run: TinyRun, tmp_path: Path, warm_python: Path) -> None:
    code, out, err = Run(tiny_run(tmp_path / "run", f"shards={tmp_path}/none"), tmp_path, str(warm_python)).end()
    assert (code, out) == (2, "")
    assert err == f"glus train: {tmp_path}/none: this folder of shards does not exist; run `glus prepare` first\n"


@pytest.mark.ranks
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_what_one_rank_finds_ends_the_others(tiny_run: TinyRun, tmp_path: Path, warm_python: Path) -> None:
    config = tiny_run(tmp_path / "run", f"tracking.uri=http://127.0.0.1:{unused_ports(1)[0]}")
    run = Run(config, tmp_path, str(warm_python))
    code, out, err = run.end()
    assert (code, out) == (2, "")
    assert err.startswith("glus train: no MLflow server can be reached at http://127.0.0.1:") and err.count("\n") == 1


@pytest.mark.ranks
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_stop_that_comes_before_the_ranks_are_there_is_obeyed(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = Run(tiny_run(tmp_path / "run", "steps=1000"), tmp_path)
    # As soon as the launcher listens. (All signals are blocked for a moment whenever a process is started.)
    while run.masks().get(run.process.pid) != TERM | USR2 and run.process.poll() is None:
        time.sleep(0.01)
    run.process.send_signal(signal.SIGTERM)
    code, out, err = run.end()
    assert code == ranks.STOPPED, err
    assert out.splitlines()[-1].startswith("stopped after step 1 of 1000 (SIGUSR2)")


@pytest.mark.ranks
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_killed_rank_ends_the_run_and_the_same_command_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run(tmp_path / "run", "steps=1000", "checkpoint_every=2")
    run = Run(config, tmp_path)
    latest = tmp_path / "run" / "checkpoints" / "latest"
    while not latest.is_file() and run.process.poll() is None:
        time.sleep(0.1)
    there = run.ranks()
    killed = time.monotonic()
    if 1 in there:
        os.kill(there[1], signal.SIGKILL)
    code, out, err = run.end()
    # Seconds on a calm machine, and far from the half hour after which gloo gives up.
    assert set(there) == {0, 1} and time.monotonic() - killed < 120, err
    assert code == 2
    assert "Traceback" not in err and "INFO" not in out + err
    *_, last = err.strip().splitlines()
    assert last == (
        "glus train: rank 1 was killed by SIGKILL (most often out of memory); the others were stopped. "
        f"The same command goes on from the last checkpoint in {tmp_path}/run"
    )
    # Its record may still say RUNNING: rank 0 had seconds to close it. The same command goes on in it; told to stop, it
    # saves and says so.
    before = latest.read_text(encoding="utf-8")
    again = Run(config, tmp_path)
    while latest.read_text(encoding="utf-8") == before and again.process.poll() is None:
        time.sleep(0.1)
    # To the eldest thread that takes it: that of a library, where one has threads, or else the one that waits for it.
    again.tell(next(thread for thread, mask in again.masks().items() if not mask & TERM))
    code, out, err = again.end()
    assert code == ranks.STOPPED, err
    assert "WARN" not in err
    at = int(latest.read_text(encoding="utf-8").removeprefix("step-"))
    assert at > int(before.removeprefix("step-"))
    *_, saved, last = out.splitlines()
    assert saved == f"checkpoint: {tmp_path}/run/checkpoints/step-{at:06d}"
    assert last == f"stopped after step {at} of 1000 (SIGUSR2); the same command goes on from there"
    [record] = find_runs(config.tracking)
    assert sorted(step for step, _ in record.history["total"]) == list(range(1, at + 1))
