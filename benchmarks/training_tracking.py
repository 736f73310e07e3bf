"""An MLflow server that is killed three times while records are made: what arrives, and what a step pays for it.

    python benchmarks/training_tracking.py [--away 5] [--steps 300]

Steps are stood in for by a few matrix products. Each kill is a SIGKILL of the whole server; it comes back after
`--away` seconds. Prints medians of a step with the server there and away, and records lost and doubled.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests
import torch

from glus.training.tracking import Tracker, TrackingConfig, find_runs

KILLS, METRICS = 3, ("loss", "gradient_norm", "learning_rate")


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
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self.words, stdout=quiet, stderr=quiet, start_new_session=True)

    def wait(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise SystemExit("the server did not come up in 120 s")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def step(matrix: torch.Tensor) -> None:
    for _ in range(4):
        matrix @ matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", type=float, default=5.0, help="seconds that the server is away each time")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    matrix = torch.randn(512, 512)
    away = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start()
        server.wait()
        config = TrackingConfig(uri=server.uri, experiment="kills")
        seconds: dict[bool, list[float]] = {True: [], False: []}

        def kills() -> None:
            for _ in range(KILLS):
                time.sleep(2)
                server.kill()
                away.set()
                time.sleep(arguments.away)
                server.start()
                server.wait()
                away.clear()

        with Tracker.start(config, "killed", {}) as tracker:
            killer = threading.Thread(target=kills)
            killer.start()
            taken = 0
            while taken < arguments.steps or killer.is_alive():
                gone = away.is_set()
                began = time.perf_counter()
                step(matrix)
                tracker.log_metrics(dict.fromkeys(METRICS, float(taken)), taken)
                seconds[gone].append(time.perf_counter() - began)
                taken += 1
            killer.join()
        [run] = find_runs(config, ["killed"])
        server.kill()
    there, gone_ = (statistics.median(seconds[key]) for key in (False, True))
    counts = {name: [at for at, _ in run.history[name]] for name in METRICS}
    print(
        json.dumps(
            {
                "records": taken * len(METRICS),
                "lost": sum(len(set(range(taken)) - set(found)) for found in counts.values()),
                "doubled": sum(len(found) - len(set(found)) for found in counts.values()),
                "median_step_ms": {"server there": 1000 * there, "server away": 1000 * gone_},
                "slower": gone_ / there - 1,
                "steps_while_away": len(seconds[True]),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
