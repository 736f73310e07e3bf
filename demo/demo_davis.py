"""`glus demo-davis`: the demo's model on real video: prepare Ref-DAVIS17, fine-tune, evaluate."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from glus.common.errors import LaunchError
from glus.demo.demo_stages import (
    DATA_CODE,
    PREPARE,
    TRAIN_CODE,
    evaluation_stage,
    print_mlflow,
    set_up_seconds,
    shard_manifests,
    tracking_place,
)
from glus.demo.demo_summary import benchmarks_of, kinds_of, print_cost, read_summary, took, write_summary
from glus.launch.stages import Stage, StageFailed, Stages, checkpoint_files, with_terminate_as_interrupt
from glus.training.checkpoints import checkpoint

NAME = "DAVIS17"
SPLITS = ("ref_davis17/train", "ref_davis17/valid")


@dataclass(frozen=True)
class DemoDavisConfig:
    """Which data, which model to start from, and how the training departs from that model's own."""

    data: Path
    """The folder that holds DAVIS17/ (or DAVIS17 itself), laid out as docs/data_format.md says."""
    out: Path = Path("build/demo-davis")
    """Folder for everything that this makes."""
    start: Path = Path("build/looks/clips")
    """Run folder of the model to start from: that of `make demo-looks`."""
    changes: tuple[str, ...] = ("sampling.mixture={ref_davis17/train: 1}",)
    """Overrides for the training, as key=value; what is not said is as in the run of `start`."""


def demo_davis(config: DemoDavisConfig) -> int:
    """Run what is not done yet, then write OUT/summary.json and print it.

    Returns 0, or the exit code of the stage that failed (it printed why). Raises LaunchError where data or model are
    not there, or where OUT holds what this did not make.
    """
    root = root_of(config.data)
    _check_start(config.start)
    stages = Stages(config.out, total=3)
    with_terminate_as_interrupt()
    try:
        stages.run(_preparation(config, root))
        stages.run(_training(config))
        run, scored, title = config.out / "run", config.out / "eval", "Ref-DAVIS17, fine-tuned from the demo"
        stages.run(evaluation_stage(config.out, run, scored, SPLITS, title))
    except StageFailed as failed:
        return failed.report("glus demo-davis")
    _summarise(config, stages)
    return 0


def root_of(data: Path) -> Path:
    """The folder above DAVIS17, from itself or from DAVIS17. Raises LaunchError where neither is it."""
    for root in (data, data.parent):
        if (root / NAME / "meta_expressions").is_dir() and (root == data or data.name == NAME):
            return root
    raise LaunchError(
        f"{data} holds no {NAME}/meta_expressions: give the folder that {NAME} lies in, or {NAME} itself "
        "(docs/data_format.md draws it)"
    )


def _check_start(start: Path) -> None:
    if not (start / "config.yaml").is_file() or checkpoint.find_latest(start / "checkpoints") is None:
        raise LaunchError(
            f"{start} holds no trained model: run `make demo-looks` first, or name another run as start=FOLDER"
        )


def _preparation(config: DemoDavisConfig, root: Path) -> Stage:
    shards = config.out / "shards"
    words = ("prepare", "datasets=[ref_davis17:train, ref_davis17:valid]", f"root={root}", f"out={shards}")
    annotations = [root / NAME / "meta_expressions" / split / "meta_expressions.json" for split in ("train", "valid")]
    # A split that is absent is reported by `prepare`, better than by a digest of nothing.
    inputs = tuple(each for each in annotations if each.is_file())
    return Stage(PREPARE, words, makes=(shards,), inputs=inputs, code=DATA_CODE)


def _training(config: DemoDavisConfig) -> Stage:
    out = config.out / "run"
    words = (
        *("train", str(config.start / "config.yaml"), "name=davis", f"out={out}", f"shards={config.out / 'shards'}"),
        *(f"init_from={config.start}", "model.tokenizer="),  # the tokenizer of that checkpoint
        *(f"tracking.uri={tracking_place(config.out)}", *config.changes),
    )
    inputs = (*checkpoint_files(config.start), *shard_manifests(config.out))
    return Stage("fine-tune", words, makes=(out,), inputs=inputs, code=TRAIN_CODE)


def _summarise(config: DemoDavisConfig, stages: Stages) -> None:
    scores = read_summary(config.out / "eval" / "scores.json")
    benchmarks = benchmarks_of(scores)
    results = took(config.out, stages, set_up_seconds()) | {
        "jf_train": benchmarks[SPLITS[0]]["JF"],
        "jf_valid": benchmarks[SPLITS[1]]["JF"],
        "by_benchmark": benchmarks,
        "jf_by_kind": kinds_of(scores),
    }
    meaning = {
        "jf_train": "mean J&F over all expressions of the videos that the model was fine-tuned on",
        "jf_valid": "the same of videos that it has not seen",
        "seconds": "all stages, each as long as it took when it last ran, and what lies between them, wall clock",
    }
    summary = write_summary(config.out, results, meaning)
    for split in SPLITS:
        of_split = summary["by_benchmark"][split]
        shown = ", ".join(f"{name} {'–' if value is None else f'{value:z.1f}'}" for name, value in of_split.items())
        Console().print(f"[bold]{split}[/]: {shown}", highlight=False)
    print_cost(summary)
    print(f"report: {config.out / 'eval' / 'report.html'}")
    print(f"pictures: {config.out / 'eval' / 'overlays'}")
    print(f"results: {config.out / 'summary.json'}")
    print_mlflow(config.out)
