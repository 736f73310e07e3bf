"""`glus prepare` killed with -9 at random moments, driver or a worker, and started again each time.

    python benchmarks/data_kills.py [--kills 20] [--videos 240] [--workers 2]

Compares the shards with those of one run that nobody disturbed: byte for byte, index and manifest too.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker

SPLIT = ("mevis", "train")
FRAMES, HEIGHT, WIDTH = 4, 48, 64
#: A driver that neither ends nor writes for so long has hung.
PATIENCE = 600.0


def write_mevis(root: Path, videos: int) -> None:
    """A small MeViS train: one object and one expression a video, frames of noise."""
    folder = root / "mevis" / "train"
    random = np.random.Generator(np.random.Philox(key=1))
    entries, masks = {}, {}
    names = [f"{index:05d}" for index in range(FRAMES)]
    for number in range(videos):
        video = folder / "JPEGImages" / f"video{number:04d}"
        video.mkdir(parents=True)
        for name in names:
            frame = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            (video / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", frame)[1].tobytes())
        said = {"0": {"exp": f"thing {number}", "anno_id": [number], "obj_id": [0]}}
        entries[video.name] = {"frames": names, "expressions": said}
        masks[str(number)] = [encode(random.random((HEIGHT, WIDTH)) < 0.1) for _ in names]
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": entries}))
    (folder / "mask_dict.json").write_text(json.dumps(masks))


def undisturbed(root: Path, out: Path, videos_per_shard: int) -> dict[str, str]:
    """Digests of the files that one process writes alone."""
    split = read_dataset(*SPLIT[:1], root, SPLIT[1])
    jobs = plan_jobs(split, root, out / "/".join(SPLIT), videos_per_shard)
    maker = ShardMaker()
    for job in jobs:
        maker.make(job)
    finish_split(split, jobs)
    return digests(out)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of everything below `out`."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start_driver(root: Path, out: Path, address: str, workers: int, videos_per_shard: int) -> subprocess.Popen[bytes]:
    words = [
        *("prepare", f"datasets=[{':'.join(SPLIT)}]", f"root={root}", f"out={out}", f"ray_address={address}"),
        *(f"workers={workers}", f"videos_per_shard={videos_per_shard}"),
    ]
    code = "import sys; from glus.launch.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ray_workers() -> list[psutil.Process]:
    """Processes of this process's own Ray that make shards."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::ShardMaker" in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            found += []  # it ended while we looked
    return found


def parts(out: Path) -> int:
    return len(list(out.glob("*/*/parts/*.json")))


def killed_run(
    root: Path,
    out: Path,
    address: str,
    kills: Sequence[str],
    seed: int = 0,
    workers: int = 2,
    per_shard: int = 2,
) -> Counter[str]:
    """Prepare until it is done, with `kills` ("driver" or "worker") on the way, each at a random moment.

    Returns what was killed and how often it was started. Raises RuntimeError where a driver ends in an error that is
    not one of a dead worker, or hangs.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    left, counts = deque(kills), Counter[str]()
    while True:
        driver = start_driver(root, out, address, workers, per_shard)
        counts["starts"] += 1
        # Workers die several times in one run; a run whose driver dies is over.
        while left and _waited(driver, out, parts(out), float(random.uniform(0, 0.3))):
            victims: Sequence[Any] = [driver] if left[0] == "driver" else ray_workers()
            if victims:
                victims[int(random.integers(len(victims)))].kill()
                counts[left.popleft()] += 1
        said = driver.communicate(timeout=PATIENCE)[0].decode()
        if driver.returncode == 0 and not left:
            return counts
        if driver.returncode == 0:
            # Done too early: take something away, as a lost disk would.
            for path in (out / "/".join(SPLIT)).glob("shard-*1.tar"):
                path.unlink()
            (out / "/".join(SPLIT) / "manifest.json").unlink()
        elif driver.returncode > 0 and "a worker died" not in said:
            raise RuntimeError(said)


def _waited(driver: subprocess.Popen[bytes], out: Path, before: int, seconds: float) -> bool:
    """Wait until the driver has something new written, and then some seconds; whether it still runs."""
    started = time.monotonic()
    while driver.poll() is None and parts(out) <= before:
        if time.monotonic() - started > PATIENCE:
            driver.kill()
            raise RuntimeError("the driver hangs")
        time.sleep(0.01)
    time.sleep(seconds)
    return driver.poll() is None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Ray gives its workers a low priority, which on a busy machine makes them very slow.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    import ray

    with tempfile.TemporaryDirectory() as folder:
        root, out, alone = Path(folder) / "raw", Path(folder) / "out", Path(folder) / "alone"
        write_mevis(root, arguments.videos)
        wanted = undisturbed(root, alone, 2)
        started = time.perf_counter()
        ray.init(num_cpus=arguments.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        address = ray.get_runtime_context().gcs_address
        random = np.random.Generator(np.random.Philox(key=arguments.seed + 1))
        kills = [("driver", "worker")[each] for each in random.integers(2, size=arguments.kills)]
        counts = killed_run(root, out, address, kills, arguments.seed, arguments.workers)
        ray.shutdown()
        found = digests(out)
        results = dict(counts) | {
            "seconds": round(time.perf_counter() - started, 1),
            "files": len(found),
            "files that differ from an undisturbed run": sum(found.get(name) != wanted[name] for name in wanted),
            "files too many": len(set(found) - set(wanted)),
        }
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
