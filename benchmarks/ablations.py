"""What contrastive loss, context frames and memory bring on the demo: clips trained again from its single frames.

    python benchmarks/ablations.py [--demo build/demo] [--seeds 3] [--ablation-seeds 3] [key=value ...]

`make demo` comes first: its shards and its run on single frames are what every training here starts from. Contrastive
loss on and off are trained with `--seeds` seeds each, context frames off and memory off with `--ablation-seeds`; all
are evaluated on the demo's held-out videos. `key=value` departs from configs/demo.yaml for all of them. Called again it
skips what is done, like `glus demo`. J&F overall and of motion expressions are read back from MLflow, and the table
goes to DEMO/ablations/ablations.md.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.common.errors import LaunchError, UserError
from glus.demo.demo import (
    CONFIGS,
    EVALUATE_CODE,
    SINGLE_FRAMES,
    SPLITS,
    TRAIN_CODE,
    WITHOUT_MEMORY,
    shard_manifests,
)
from glus.launch.cli import CANNOT_WORK
from glus.launch.stages import Stage, StageFailed, Stages, checkpoint_files, with_terminate_as_interrupt
from glus.training.tracking.recorded_runs import RunRecord, find_runs
from glus.training.tracking.run_record import run_of_folder
from glus.training.tracking.tracking_place import TrackingConfig

EXPERIMENT = "ablations"
OVERALL, MOTION = "eval/overall/JF", "eval/kind/motion/JF"
#: Share of [SEG] states that had a partner to be drawn to, at each recorded step.
PARTNERS = "contrastive_share"


@dataclass(frozen=True)
class Variant:
    """One row of the table: how it departs from configs/demo.yaml."""

    name: str
    title: str
    changes: tuple[str, ...] = ()


FULL = Variant("full", "all of it")
WITHOUT_CONTRASTIVE = Variant("without_contrastive", "contrastive loss off", ("model.loss.contrastive=0",))
ABLATIONS = (
    Variant("without_context", "context frames off", ("sampling.context_frames=0",)),
    # Memory attention and encoder have no gradient then: ZeRO would wait for it.
    Variant(
        "without_memory",
        "memory bank off",
        ("model.segmenter.use_memory=false", f"trainable=[{', '.join(WITHOUT_MEMORY)}]"),
    ),
)


@dataclass(frozen=True)
class Place:
    """Folders of the demo and of what is made here, and what departs from the demo for every training."""

    demo: Path
    changes: tuple[str, ...]

    @property
    def out(self) -> Path:
        return self.demo / "ablations"

    @property
    def tracking(self) -> TrackingConfig:
        return TrackingConfig(uri=f"sqlite:///{self.out / 'mlflow.db'}", experiment=EXPERIMENT)

    def run(self, variant: Variant, seed: int) -> Path:
        return self.out / f"{variant.name}-{seed}"


def training(place: Place, variant: Variant, seed: int) -> Stage:
    """The demo's training on clips (demo/demo.py) with another seed and the variant's changes."""
    start, folder, shards = place.demo / SINGLE_FRAMES.folder, place.run(variant, seed), place.demo / "shards"
    words = (
        *("train", str(CONFIGS / "demo.yaml"), f"name={folder.name}", f"out={folder}", f"shards={shards}"),
        *(f"seed={seed}", f"init_from={start}", f"model.tokenizer={place.demo / 'raw' / 'tokenizer.model'}"),
        *(f"tracking.uri={place.tracking.uri}", f"tracking.experiment={EXPERIMENT}"),
        *(*place.changes, *variant.changes),
    )
    inputs = (*checkpoint_files(start), *shard_manifests(place.demo))
    return Stage(f"train {folder.name}", words, makes=(folder,), inputs=inputs, code=TRAIN_CODE)


def evaluation(place: Place, variant: Variant, seed: int) -> Stage:
    """As the demo evaluates its models."""
    folder, shards = place.run(variant, seed), place.demo / "shards"
    out = folder.with_name(f"{folder.name}-eval")
    words = (
        *("evaluate", str(CONFIGS / "demo_evaluate.yaml"), f"checkpoint={folder}", f"shards={shards}", f"out={out}"),
        *(f"splits=[{', '.join(SPLITS)}]", "report=false"),
    )
    inputs = (*checkpoint_files(folder), *shard_manifests(place.demo))
    return Stage(f"evaluate {folder.name}", words, makes=(out,), inputs=inputs, code=EVALUATE_CODE)


def recorded(place: Place, variant: Variant, seeds: int) -> list[RunRecord]:
    """The runs of a variant as MLflow holds them, by the ids that their folders name."""
    ids = [str(run_of_folder(place.run(variant, seed))) for seed in range(seeds)]
    return find_runs(place.tracking, ids)


def spread(values: Sequence[float]) -> str:
    """Mean, sample standard deviation, and the values: "68.1 ± 0.4 (67.7, 68.1, 68.5)"."""
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation} ({', '.join(f'{value:.1f}' for value in values)})"


def table(rows: Sequence[tuple[Variant, Sequence[RunRecord]]]) -> str:
    """Markdown: a row a variant, against the first."""
    lines = [
        "| | seeds | J&F, all expressions | to the first | J&F, motion | to the first | [SEG] with a partner |",
        "|---|---|---|---|---|---|---|",
    ]
    first = rows[0][1]
    for variant, runs in rows:
        cells = [variant.title, str(len(runs))]
        for name in (OVERALL, MOTION):
            values = [run.metrics[name] for run in runs if name in run.metrics]
            base = [run.metrics[name] for run in first if name in run.metrics]
            known = values and base and variant is not rows[0][0]
            cells += [spread(values), f"{statistics.mean(values) - statistics.mean(base):+.1f}" if known else ""]
        shares = [value for run in runs for _, value in run.history.get(PARTNERS, ()) if not math.isnan(value)]
        cells.append(f"{100 * statistics.mean(shares):.0f} %" if shares else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ablate(place: Place, seeds: int, ablation_seeds: int) -> str:
    """Train and evaluate what is not done yet; the table. Raises StageFailed, and LaunchError without a demo."""
    if not (place.demo / SINGLE_FRAMES.folder / "checkpoints" / "latest").is_file():
        raise LaunchError(f"{place.demo / SINGLE_FRAMES.folder} holds no checkpoint: run `make demo`, or name --demo")
    counts = {FULL: seeds, WITHOUT_CONTRASTIVE: seeds} | dict.fromkeys(ABLATIONS, ablation_seeds)
    place.out.mkdir(exist_ok=True)
    stages = Stages(place.out, total=2 * sum(counts.values()))
    # Seed by seed: stopped half way, there is a row for everything.
    for seed in range(max(counts.values())):
        for variant, count in counts.items():
            if seed < count:
                stages.run(training(place, variant, seed))
                stages.run(evaluation(place, variant, seed))
    return table([(variant, recorded(place, variant, count)) for variant, count in counts.items() if count])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("build/demo"), help="folder of `make demo`")
    parser.add_argument("--seeds", type=int, default=3, help="of contrastive loss on and off, each")
    parser.add_argument("--ablation-seeds", type=int, default=3, help="of context frames off and memory off, each")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="for every training, such as steps=300")
    asked = parser.parse_args()
    if asked.seeds < 1 or asked.ablation_seeds < 0:
        parser.error("--seeds is at least 1, --ablation-seeds at least 0")
    with_terminate_as_interrupt()
    place = Place(asked.demo, tuple(asked.changes))
    try:
        found = ablate(place, asked.seeds, asked.ablation_seeds)
    except StageFailed as failed:
        print(f"{failed}; the same command goes on from there", file=sys.stderr)
        return failed.code
    except UserError as error:
        print(error, file=sys.stderr)
        return CANNOT_WORK
    (place.out / "ablations.md").write_text(found, encoding="utf-8")
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
