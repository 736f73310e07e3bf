"""What a key frame is worth on the demo's data: the first frame, the selected one, the best one and a random one.

    python benchmarks/key_frames.py OUT [--demo build/looks] [--seeds 0 1 2] [--train-splits mevis/train revos/train]

For each seed: train the demo's GLUS (seed 0 is the demo's own run), score its masks of the training videos, train the
selector on these labels, select, and evaluate the same GLUS from four key frames. "best" is the frame with the highest
J of the model's own masks that begin at the first frame: what a perfect selector would name. Prints J&F by arm,
differences from the first frame with 95 % intervals over videos and seeds, and the rank correlation of score and J
within an expression. What is done already is kept: the commands go on by themselves. OUT/key_frames.json has it all.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from scipy.stats import spearmanr

from glus.common.seeds import numpy_generator
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.evaluation.predict.key_frames import frame_of_file, key_of
from glus.evaluation.results.frame_scores import read_frame_scores
from glus.evaluation.results.intervals import Sample, difference
from glus.evaluation.select.selection_rules import best_frame

GLUS = (sys.executable, "-m", "glus.launch.cli")
ROOT = Path(__file__).parents[1]
ARMS = ("first", "selected", "best", "random")
#: Dataset, split, video and expression.
Name = tuple[str, str, str, str]


def glus(*words: str) -> None:
    print("glus", *words, flush=True)
    subprocess.run([*GLUS, *words], cwd=ROOT, check=True)


def evaluated(checkpoint: Path, shards: Path, out: Path, splits: Sequence[str], *changes: str) -> Path:
    """Evaluate, once; returns `out`."""
    if not (out / "scores.json").exists():
        chosen = f"splits=[{','.join(splits)}]"
        places = (f"checkpoint={checkpoint}", f"shards={shards}", f"out={out}", chosen)
        glus("evaluate", *places, "report=false", "record=false", *changes)
    return out


def valid_splits(shards: Path) -> list[ShardedSplit]:
    """The held-out splits of the demo whose masks are known."""
    names = sorted(f"{place.parent.name}/{place.name}" for place in shards.glob("*/valid*") if place.is_dir())
    return [split for split in open_splits(shards, names) if split.index.target_counts().sum()]


def write_choice(out: Path, splits: Sequence[ShardedSplit], chosen: dict[Name, int], seed: int) -> Path:
    """A file of key frames: those of `chosen`, at random elsewhere."""
    frames = {}
    for split in splits:
        for place, entry in enumerate(split.videos):
            for number, expression in enumerate(entry.expressions):
                drawn = int(numpy_generator(seed, place, number).integers(len(entry.frame_names)))
                index = chosen.get((split.dataset, split.split, entry.video, expression.id), drawn)
                frames[key_of(entry.video, expression.id)] = frame_of_file(entry.frame_names, index)
    out.write_text(json.dumps(frames), encoding="utf-8")
    return out


def best_frames(first: Path) -> dict[Name, int]:
    """The frame with the highest J of each expression whose target is known."""
    return {
        (each.dataset, each.split, each.video, each.expression): best_frame(each.J.tolist())
        for each in read_frame_scores(first)
    }


def rank_correlations(first: Path, scores: Path) -> Iterator[tuple[Name, float]]:
    """Spearman's, of score and J over the frames of each expression; expressions whose J never differs have none."""
    table = parquet.read_table(scores).to_pydict()
    keys = zip(table["dataset"], table["split"], table["video"], table["expression"], table["frame"], strict=True)
    found = dict(zip(keys, table["score"], strict=True))
    for each in read_frame_scores(first):
        name = (each.dataset, each.split, each.video, each.expression)
        ours = [found[(*name, frame)] for frame in each.frame_names]
        if np.ptp(each.J) and np.ptp(ours):
            yield name, float(spearmanr(ours, each.J).statistic)


def jf_of(out: Path) -> dict[Name, float]:
    """J&F of each expression with a target, as the overall J&F counts them."""
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["dataset"], row["split"], row["video"], row["expression"]): float(row["JF"])
        for row in rows
        if row["JF"] and row["object_ids"]
    }


def one_seed(out: Path, demo: Path, seed: int, train_splits: Sequence[str]) -> dict[str, Any]:
    """All arms of one seed."""
    shards = demo / "shards"
    out.mkdir(parents=True, exist_ok=True)
    tracked = f"tracking.uri=sqlite:///{out / 'mlflow.db'}"
    run, labels, selector = demo / "clips", out / "labels", out / "selector"
    parts = (f"shards={shards}", f"model.tokenizer={demo / 'raw' / 'tokenizer.model'}", f"seed={seed}", tracked)
    if seed:
        run, begin = out / "run", demo / "single_frames"
        glus("train", "configs/looks.yaml", f"name=seed-{seed}", f"out={run}", f"init_from={begin}", *parts)
    splits = valid_splits(shards)
    names = [f"{split.dataset}/{split.split}" for split in splits]
    first = evaluated(run, shards, out / "first", names)
    evaluated(run, shards, labels, train_splits)
    mixture = f"sampling.mixture={json.dumps(dict.fromkeys(train_splits, 1))}"
    places = (f"out={selector}", f"init_from={run}", f"sampling.frame_scores={labels}", mixture)
    glus("train", "configs/demo_selector.yaml", f"name=selector-{seed}", *places, *parts)
    selected = out / "selected.json"
    chosen = f"splits=[{','.join(names)}]"
    glus("select-frames", f"checkpoint={selector}", f"shards={shards}", f"out={selected}", chosen)
    files = {
        "selected": selected,
        "best": write_choice(out / "best.json", splits, best_frames(first), seed),
        "random": write_choice(out / "random.json", splits, {}, seed),
    }
    scored = {"first": jf_of(first)} | {
        arm: jf_of(evaluated(run, shards, out / arm, names, f"inference.key_frames={file}"))
        for arm, file in files.items()
    }
    ranks = dict(rank_correlations(first, selected.with_suffix(".parquet")))
    return {"JF": scored, "rank": {name: value for name, value in ranks.items() if name in scored["first"]}}


def summed_up(seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Means by arm and seed, paired differences from the first frame, rank correlation."""
    arms: dict[str, Any] = {}
    for arm in ARMS:
        by_seed = {seed: float(np.mean(list(found["JF"][arm].values()))) for seed, found in seeds.items()}
        arms[arm] = {"J&F": float(np.mean(list(by_seed.values()))), "by_seed": by_seed}
        if arm != "first":
            ours, theirs = (sample(seeds, name) for name in (arm, "first"))
            gap = difference(ours, theirs)
            arms[arm]["minus_first"] = float(np.mean(ours.values) - np.mean(theirs.values))
            arms[arm]["interval"] = [gap.low, gap.high] if gap else None
    ranks = [value for found in seeds.values() for value in found["rank"].values()]
    each = {seed: float(np.mean(list(found["rank"].values()))) for seed, found in seeds.items()}
    return {
        "arms": arms,
        "rank_correlation": {"mean": float(np.mean(ranks)), "by_seed": each, "expressions": len(ranks)},
    }


def sample(seeds: dict[int, dict[str, Any]], arm: str) -> Sample:
    """All expressions of all seeds, drawn by video and seed."""
    rows = [((seed, *name[:3]), value) for seed, found in seeds.items() for name, value in found["JF"][arm].items()]
    return Sample([value for _, value in rows], [video for video, _ in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--demo", type=Path, default=Path("build/looks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-splits", nargs="+", default=["mevis/train", "revos/train"])
    arguments = parser.parse_args()
    out, demo = arguments.out.absolute(), arguments.demo.absolute()
    found = {seed: one_seed(out / f"seed-{seed}", demo, seed, arguments.train_splits) for seed in arguments.seeds}
    summary = summed_up(found)
    (out / "key_frames.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
