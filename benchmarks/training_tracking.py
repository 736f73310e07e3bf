"""A training whose MLflow server is killed for a minute, three times: what a step pays for it, and what arrives.

    python benchmarks/training_tracking.py [--away 60] [--there 20] [--kills 3]

A tiny model on one rank, `glus train` in a process of its own, every step recorded. A kill is a SIGKILL of the complete
server. While it starts again it takes processor time from the training, which has nothing to do with our code: those
steps are distinguished. A step lasts from one record of its loss to the next, logging included. Prints medians, also of
each stretch by itself, the processor time of a step in all threads (which other work on the machine does not change),
and records lost and doubled over all metrics of the run.
"""

import argparse
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
from small_demo import write_small_demo

sys.path.append(str(Path(__file__).parents[1]))

from glus.common.cores import usable_cores
from glus.training.tracking.run_record import run_of_folder

ROOT = Path(__file__).parents[1]
GLUS = [sys.executable, "-P", "-m", "glus.launch.cli"]
LOSS, STOPPED = "total", 75
#: Recorded for each step; others only with a checkpoint.
ONCE = ("checkpoint_seconds",)


class Server:
    """MLflow on loopback with its records in a file, as a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        self.words = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]
        self.uri, self.log = f"http://127.0.0.1:{self.port}", folder / "server.log"

    def start(self) -> None:
        # Without this MLflow starts eight more processes for jobs that nobody sends, each importing all of it: on two
        # busy cores minutes go by before the server answers.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.words, stdout=log, stderr=log, start_new_session=True, env=environment)

    def wait(self, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                pass  # not up yet
            if self.process.poll() is not None:
                break
            time.sleep(0.5)
        raise SystemExit(f"the server did not come up:\n{self.log.read_text(encoding='utf-8')[-3000:]}")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def history(self, run: str, metric: str) -> list[dict[str, Any]]:
        """All records of a metric, in order of steps: "step", "timestamp" in milliseconds, "value"."""
        words: dict[str, str] = {"run_id": run, "metric_key": metric}
        answer = requests.get(f"{self.uri}/api/2.0/mlflow/metrics/get-history", params=words, timeout=60)
        answer.raise_for_status()
        return sorted(answer.json()["metrics"], key=lambda each: int(each["step"]))

    def metrics(self, run: str) -> list[str]:
        answer = requests.get(f"{self.uri}/api/2.0/mlflow/runs/get", params={"run_id": run}, timeout=60)
        answer.raise_for_status()
        return [each["key"] for each in answer.json()["run"]["data"].get("metrics", [])]


def prepare(folder: Path) -> None:
    write_small_demo(folder, ("mevis/train", "ref_davis17/train"), videos=2, frames=4)


def begin(folder: Path, server: Server) -> "subprocess.Popen[bytes]":
    words = [*GLUS, "train", str(ROOT / "tests/tiny_run.yaml"), f"out={folder / 'run'}", f"shards={folder}/shards"]
    words += [f"model.tokenizer={folder}/raw/tokenizer.model", f"tracking.uri={server.uri}", "ranks=1"]
    words += ["steps=1000000", "log_every=1", "checkpoint_minutes=0"]
    # One core for the training, so that the server has the other.
    environment = os.environ | {"LOCAL_WORLD_SIZE": str(usable_cores()), "OMP_NUM_THREADS": "1"}
    with open(folder / "train.log", "ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, env=environment)


@dataclass(frozen=True)
class Mark:
    """From `when` (seconds since the epoch) on the server is "there", "away" or "starting"; `spent`: processor seconds
    of the training until then."""

    when: float
    state: str
    spent: float


def disturb(server: Server, training: int, kills: int, away: float, there: float) -> list[Mark]:
    """Kill the server `kills` times while process `training` trains; the last mark is the end."""

    def mark(state: str) -> None:
        used = process.cpu_times()
        marks.append(Mark(time.time(), state, used.user + used.system))

    marks: list[Mark] = []
    process = psutil.Process(training)
    mark("there")
    for _ in range(kills):
        time.sleep(there)
        mark("away")
        server.kill()
        time.sleep(away)
        mark("starting")
        server.start()
        server.wait()
        mark("there")
    time.sleep(there)
    mark("end")
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the server is away each time")
    parser.add_argument("--there", type=float, default=20.0, help="seconds before, between and after the kills")
    parser.add_argument("--kills", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare(folder)
        server = Server(folder)
        server.start()
        stack.callback(server.kill)
        server.wait()
        training = begin(folder, server)
        try:
            while run_of_folder(folder / "run") is None or not server.metrics(str(run_of_folder(folder / "run"))):
                if training.poll() is not None:
                    raise SystemExit(f"the training ended:\n{(folder / 'train.log').read_text(encoding='utf-8')}")
                time.sleep(0.5)
            time.sleep(3)  # the first steps are slower
            marks = disturb(server, training.pid, asked.kills, asked.away, asked.there)
            (folder / "run" / "stop").touch()
            code = training.wait(120)
        finally:
            training.kill()
        if code != STOPPED:
            raise SystemExit(f"exit code {code}:\n{(folder / 'train.log').read_text(encoding='utf-8')}")
        print(json.dumps(measured(server, str(run_of_folder(folder / "run")), marks), indent=1))


def measured(server: Server, run: str, marks: list[Mark]) -> dict[str, Any]:
    losses = server.history(run, LOSS)
    last = int(losses[-1]["step"])
    found = {metric: [int(each["step"]) for each in server.history(run, metric)] for metric in server.metrics(run)}
    each_step = {metric: steps for metric, steps in found.items() if metric not in ONCE}
    starts = [mark.when for mark in marks]
    stretches: list[list[float]] = [[] for _ in marks]
    for before, after in itertools.pairwise(losses):
        place = bisect_right(starts, int(before["timestamp"]) / 1000) - 1
        if place >= 0:
            stretches[place].append((int(after["timestamp"]) - int(before["timestamp"])) / 1000)
    seconds: dict[str, list[float]] = {"there": [], "away": [], "starting": []}
    spent = dict.fromkeys(seconds, 0.0)
    for taken, (mark, following) in zip(stretches, itertools.pairwise(marks), strict=False):
        seconds[mark.state] += taken
        spent[mark.state] += following.spent - mark.spent
    medians = {state: statistics.median(values) for state, values in seconds.items()}
    processor = {state: spent[state] / len(values) for state, values in seconds.items()}
    return {
        "steps": last,
        "steps_by_state": {state: len(values) for state, values in seconds.items()},
        "metrics": len(each_step),
        "records": sum(map(len, each_step.values())),
        "lost": sum(last - len(set(steps)) for steps in each_step.values()),
        "doubled": sum(len(steps) - len(set(steps)) for steps in each_step.values()),
        "median_step_ms": {state: 1000 * value for state, value in medians.items()},
        "median_step_ms_in_order": [
            (mark.state, round(1000 * statistics.median(taken)))
            for mark, taken in zip(marks, stretches, strict=True)
            if taken
        ],
        "processor_ms_of_a_step": {state: 1000 * value for state, value in processor.items()},
        "longest_step_ms": {state: 1000 * max(values) for state, values in seconds.items()},
        "slower_while_away": medians["away"] / medians["there"] - 1,
        "more_processor_time_while_away": processor["away"] / processor["there"] - 1,
    }


if __name__ == "__main__":
    main()
