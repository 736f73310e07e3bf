"""Every check of docs/gpu.md on one GPU, in the order of their worth: one command for the day a GPU is at hand.

    python benchmarks/gpu_day.py OUT [--demo build/looks] [--minutes 25] [--rows NAME ...]

Each row is a command of the project with a time limit. What is left when the minutes are over is not begun, and is
named. OUT/results.json holds all results, OUT/results.md the table, OUT/logs/ what each command printed; all of them
are written after each row, so that a lease that ends early loses one row. Exit code 1 where a row failed.
DEMO is the folder of `make demo-looks`: shards, tokenizer, image encoder. On a CPU the rows run at small sizes.
"""

import argparse
import importlib.util
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
GLUS = (sys.executable, "-m", "glus.launch.cli")
#: Packages whose versions are recorded.
RECORDED = ("torch", "transformers", "peft", "deepspeed", "numpy", "sam2")


@dataclass(frozen=True)
class Row:
    """One check. `read` gives its results from what it printed; `limit` is in seconds."""

    name: str
    words: Sequence[str]
    limit: int
    read: Callable[[str], dict[str, Any]]
    environment: tuple[tuple[str, str], ...] = ()


def of_json(printed: str) -> dict[str, Any]:
    """The JSON object that a benchmark printed last."""
    return json.loads(printed[printed.index("\n{\n" if "\n{\n" in printed else "{") :])


def of_run(out: Path) -> Callable[[str], dict[str, Any]]:
    """Steps, first and last loss and seconds a step of a training run."""

    def read(_: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [line for line in lines if "total" in line]
        seconds = [line["step_seconds"] for line in steps[1:] if "step_seconds" in line]
        return {
            "steps": steps[-1]["step"],
            "loss_first": steps[0]["total"],
            "loss_last": steps[-1]["total"],
            "step_seconds": statistics.median(seconds) if seconds else math.nan,
            "losses": [line["total"] for line in steps],
        }

    return read


def of_scores(out: Path) -> Callable[[str], dict[str, Any]]:
    """J&F of each benchmark of an evaluation, and seconds an expression."""

    def read(printed: str) -> dict[str, Any]:
        scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        found = {each["benchmark"]: each["figures"]["JF"] for each in scores["summary"]["benchmarks"]}
        seconds = [line for line in printed.splitlines() if line.startswith("seconds per expression: ")]
        return {"J&F": found, "seconds_per_expression": float(seconds[-1].split(": ")[1])}

    return read


def of_tests(printed: str) -> dict[str, Any]:
    """pytest's last line."""
    return {"tests": printed.strip().splitlines()[-1]}


def _flash_rows(step: Sequence[str], device: str) -> list[Row]:
    """flash-attn against torch's attention, where it is installed and there is a GPU."""
    if device == "cpu" or importlib.util.find_spec("flash_attn") is None:
        return []
    alone = (*step, "--steps", "2", "--no-share", "--attention")
    return [
        Row("step 7B, flash-attn", (*alone, "flash_attention_2"), 240, of_json),
        Row("step 7B, torch's attention, no packed rows", (*alone, "sdpa"), 240, of_json),
    ]


def rows(out: Path, demo: Path, gpu: bool) -> list[Row]:
    """All checks, those first that say most."""
    bench = str(ROOT / "benchmarks")
    step, inference = (sys.executable, f"{bench}/training_step.py"), (sys.executable, f"{bench}/inference_7b.py")
    encoder, tokenizer = demo / "sam2_hiera_demo.pt", demo / "raw" / "tokenizer.model"
    device, precision = ("cuda", "bf16") if gpu else ("cpu", "fp32")

    def train(name: str, *changes: str, into: str = "") -> Row:
        place = out / (into or name)
        words = (*GLUS, "train", str(ROOT / "configs" / "looks.yaml"), f"name={name}", f"out={place}", "ranks=1")
        given = (f"shards={demo / 'shards'}", f"model.tokenizer={tokenizer}", f"weights.segmenter={encoder}")
        kept = (f"tracking.uri=sqlite:///{out / 'mlflow.db'}", "log_every=1", f"engine.device={device}")
        return Row(f"train {name}", (*words, *given, *kept, *changes), 180, of_run(place))

    def evaluate(name: str, *changes: str) -> Row:
        words = (*GLUS, "evaluate", f"checkpoint={out / 'bf16'}", f"shards={demo / 'shards'}", f"out={out / name}")
        kept = ("record=false", "report=false", f"device={device}", "splits=[mevis/valid_u]")
        return Row(f"evaluate {name}", (*words, *kept, *changes), 180, of_scores(out / name))

    tests = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not ray and not ranks and not slurm",
    )
    deterministic = ("engine.deterministic=true", f"engine.precision={precision}", "steps=12")
    return [
        Row("step 7B", (*step, "--steps", "4"), 240, of_json),
        train("bf16", f"engine.precision={precision}", "steps=60"),
        train("fp32", "engine.precision=fp32", "steps=60"),
        train("cpu", "engine.precision=fp32", "steps=20", "engine.device=cpu"),
        Row("inference 7B", (*inference, *(("--precisions", "bf16", "fp32") if gpu else ())), 240, of_json),
        Row("step 7B, nothing recomputed", (*step, "--steps", "4", "--no-recompute"), 240, of_json),
        evaluate("eval-bf16", f"inference.precision={precision}"),
        evaluate("eval-fp32", "inference.precision=fp32"),
        evaluate("eval-cpu", "inference.precision=fp32", "device=cpu"),
        train("deterministic-1", *deterministic),
        train("deterministic-2", *deterministic),
        train("resumed", f"engine.precision={precision}", "steps=80", into="bf16"),
        Row("step 7B, stage 2", (*step, "--steps", "4", "--stage", "2"), 240, of_json),
        Row("step 7B, optimizer offloaded", (*step, "--steps", "3", "--offload", "optimizer"), 240, of_json),
        Row("step 7B, compiled", (*step, "--steps", "4", "--warmup", "3", "--compile", "all"), 420, of_json),
        Row("inference 7B, compiled", (*inference, "--compile", "all"), 420, of_json),
        *_flash_rows(step, device),
        train("profile", f"engine.precision={precision}", "steps=12", "profile=3"),
        Row("loader", (sys.executable, f"{bench}/data_loader.py", "--samples", "80"), 120, of_json),
        Row(
            "tests that see the GPU",
            (*tests, "-n", str(max(2, (os.cpu_count() or 2) - 2)), "tests/model", "tests/training"),
            300,
            of_tests,
            (("GLUS_TEST_CUDA", "1" if gpu else "0"),),
        ),
    ]


def compared(results: dict[str, dict[str, Any]], out: Path) -> dict[str, Any]:
    """What two rows say together: losses of GPU and CPU, weights of two deterministic runs, masks by precision."""
    found: dict[str, Any] = {}
    losses = {name: row["losses"] for name, row in results.items() if "losses" in row}
    for first, second in (("train fp32", "train cpu"), ("train bf16", "train fp32")):
        if first in losses and second in losses:
            pairs = list(zip(losses[first][:20], losses[second], strict=False))
            found[f"largest difference of the loss, {first} and {second}"] = max(
                abs(one - other) / abs(other) for one, other in pairs
            )
    files = [next((out / f"deterministic-{n}" / "checkpoints").glob("step-*/model.safetensors"), None) for n in (1, 2)]
    if all(files):
        one, other = (file.read_bytes() for file in files if file)
        found["two deterministic runs have the same weights"] = one == other
    for precision in ("bf16", "fp32"):
        places = [out / f"eval-{each}" / "predictions" for each in (precision, "cpu")]
        if all(place.is_dir() for place in places):
            found[f"pixels that differ, {precision} on the device and the CPU"] = pixels_apart(*places)
    return found


def pixels_apart(first: Path, second: Path) -> str:
    """ "N of M" pixels of the masks in both folders."""
    differ = pixels = 0
    for file in sorted(first.rglob("*.png")):
        one, other = (np.asarray(Image.open(place)) for place in (file, second / file.relative_to(first)))
        differ += int((one != other).sum())
        pixels += one.size
    return f"{differ} of {pixels}"


def run(row: Row, out: Path, left: float) -> dict[str, Any]:
    """Run one row; its log is OUT/logs/NAME.txt."""
    log = out / "logs" / f"{row.name.replace(' ', '-').replace(',', '')}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    limit, began = min(row.limit, left), time.monotonic()
    with log.open("wb") as file:
        try:
            code = subprocess.run(
                row.words,
                cwd=ROOT,
                env=os.environ | dict(row.environment),
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    printed = log.read_text(encoding="utf-8", errors="replace")
    result: dict[str, Any] = {"code": code, "seconds": round(time.monotonic() - began, 1)}
    try:
        if code == 0 or row.read is of_tests:
            result |= row.read(printed)
    except (ValueError, OSError, KeyError, IndexError) as error:
        result |= {"code": code or 1, "unreadable": repr(error)}
    if result["code"]:
        result["end"] = printed[-1500:]
    return result


def machine() -> dict[str, str]:
    """The card, its driver, and the versions that matter."""
    found = {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d"), "device": "cpu"}
    found |= {name: version(name) for name in RECORDED}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {
            "device": card.name,
            "memory_gib": f"{card.total_memory / 2**30:.1f}",
            "cuda": str(torch.version.cuda),
        }
        nccl = torch.cuda.nccl.version()
        found |= {"nccl": ".".join(map(str, nccl)) if isinstance(nccl, tuple) else str(nccl)}
        if shutil.which("nvidia-smi"):
            words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            found["driver"] = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return found


def table(found: dict[str, Any]) -> str:
    """The results as a table in Markdown: one line a row, its results without lists."""
    lines = ["| check | seconds | result |", "|---|---|---|"]
    for name, result in found["rows"].items():
        shown = {key: value for key, value in result.items() if key not in ("seconds", "losses", "end")}
        lines.append(f"| {name} | {result.get('seconds', '')} | {json.dumps(shown)[:2000]} |")
    lines += [f"| {name} | | {value} |" for name, value in found["compared"].items()]
    return "\n".join([json.dumps(found["machine"]), "", *lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--demo", type=Path, default=Path("build/looks"), help="folder of `make demo-looks`")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--rows", nargs="+", default=[], help="these alone, by the beginning of their names")
    arguments = parser.parse_args()
    out, demo = arguments.out.absolute(), arguments.demo.absolute()
    out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * arguments.minutes
    found: dict[str, Any] = {"machine": machine(), "rows": {}, "compared": {}}
    for row in rows(out, demo, torch.cuda.is_available()):
        if arguments.rows and not row.name.startswith(tuple(arguments.rows)):
            continue
        left = ends - time.monotonic()
        found["rows"][row.name] = run(row, out, left) if left > 10 else {"code": None, "skipped": "no time was left"}
        found["compared"] = compared(found["rows"], out)
        (out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        (out / "results.md").write_text(table(found), encoding="utf-8")
        print(f"{row.name}: {json.dumps(found['rows'][row.name])[:300]}", flush=True)
    print(table(found))
    return int(any(result["code"] not in (0, None) for result in found["rows"].values()))


if __name__ == "__main__":
    sys.exit(main())
