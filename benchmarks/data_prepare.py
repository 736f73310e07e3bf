"""Seconds to prepare frames with one and two Ray workers, next to plain `tar` and `sha256sum` of the same files.

    python benchmarks/data_prepare.py [--gigabytes 2] [--rounds 1]

Ray is started before, and each worker has begun once before the clock runs. The files are read once before each
measurement, so that all find them in memory alike; each measurement ends when what it wrote is where it should be.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.shards.prepare import OBJECT_STORE_BYTES, PrepareConfig, prepare

FRAMES, HEIGHT, WIDTH = 40, 480, 854


def write_mevis(root: Path, gigabytes: float) -> int:
    """MeViS train with two objects and four expressions a video; frames of noise. Returns the bytes of all files."""
    folder = root / "mevis" / "train"
    random = np.random.Generator(np.random.Philox(key=1))
    jpegs = []
    for _ in range(FRAMES):
        small = random.integers(0, 256, (HEIGHT // 6, WIDTH // 6, 3), dtype=np.uint8)
        frame = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        jpegs.append(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    videos = max(4, round(gigabytes * 1e9 / sum(map(len, jpegs))))
    names = [f"{index:05d}" for index in range(FRAMES)]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100:300, 200:500] = True
    code = encode(mask)
    entries, masks = {}, {}
    for number in range(videos):
        video = folder / "JPEGImages" / f"video{number:05d}"
        video.mkdir(parents=True)
        for name, content in zip(names, jpegs, strict=True):
            (video / f"{name}.jpg").write_bytes(content)
        ids = [2 * number, 2 * number + 1]
        said = {str(each): {"exp": f"thing {each}", "anno_id": [ids[each // 2]]} for each in range(4)}
        entries[video.name] = {"frames": names, "expressions": said}
        masks |= {str(each): [code] * FRAMES for each in ids}
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": entries}))
    (folder / "mask_dict.json").write_text(json.dumps(masks))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tar_and_sum(root: Path, out: Path) -> float:
    """Seconds of tar, then sha256sum of the tar. Unlike `glus prepare` they do not wait for the disk."""
    out.mkdir(parents=True)
    started = time.perf_counter()
    subprocess.run(["tar", "-cf", str(out / "all.tar"), "-C", str(root), "mevis"], check=True)
    subprocess.run(["sha256sum", str(out / "all.tar")], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def prepared(root: Path, out: Path, workers: int) -> float:
    """Seconds of `glus prepare` with a Ray that runs already."""
    started = time.perf_counter()
    prepare(PrepareConfig(["mevis:train"], root, str(out), videos_per_shard=8, workers=workers))
    return time.perf_counter() - started


def read_all(root: Path) -> None:
    for path in root.rglob("*.jpg"):
        path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder otherwise")
    arguments = parser.parse_args()
    # Ray gives its workers a low priority: next to other work they would be slow, and tar would not.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    import ray

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        size = write_mevis(folder / "raw", arguments.gigabytes)
        write_mevis(folder / "warm" / "raw", 0.0)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE_BYTES)
        # The start of a worker (its imports) is Ray's own; the same start is measured and taken off below.
        times: dict[str, list[float]] = {"tar + sha256sum": [], "1 worker": [], "2 workers": [], "start of workers": []}
        for _ in range(arguments.rounds):
            for what, work in (
                ("start of workers", lambda: prepared(folder / "warm" / "raw", folder / "out", 2)),
                ("tar + sha256sum", lambda: tar_and_sum(folder / "raw", folder / "out")),
                ("1 worker", lambda: prepared(folder / "raw", folder / "out", 1)),
                ("2 workers", lambda: prepared(folder / "raw", folder / "out", 2)),
            ):
                read_all(folder / "raw")
                os.sync()
                times[what].append(work())
                shutil.rmtree(folder / "out")
        ray.shutdown()
    best = {what: min(seconds) for what, seconds in times.items()}
    start = best["start of workers"]
    one, two = best["1 worker"] - start, best["2 workers"] - start
    results = {
        "GB": size / 1e9,
        **{f"{what}, s": seconds for what, seconds in best.items()},
        "2 workers without their start : tar + sha256sum": two / best["tar + sha256sum"],
        "1 worker without its start : tar + sha256sum": one / best["tar + sha256sum"],
        "1 worker : 2 workers, without their start": one / two,
    }
    print(json.dumps({name: round(value, 2) for name, value in results.items()}, indent=1))


if __name__ == "__main__":
    main()
