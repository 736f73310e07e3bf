"""`glus demo-videolisa`: a small VideoLISA on videos and images, next to the GLUS of `make demo-looks`."""

from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from glus.common.terminal import cell
from glus.demo.demo_stages import (
    CONFIGS,
    data_stages,
    encoder_stage,
    evaluation_stage,
    print_mlflow,
    set_up_seconds,
    training_stage,
)
from glus.demo.demo_summary import benchmarks_of, kinds_of, print_cost, read_summary, shown, took, write_summary
from glus.demo.recipe_looks import LOOKS, SPLITS
from glus.demo.synthetic.demo_datasets import VIDEO_DATASETS
from glus.evaluation.results.summary import Summary
from glus.launch.stages import StageFailed, Stages, with_terminate_as_interrupt

#: The video datasets of the demo and its two of images.
DATASETS = (*VIDEO_DATASETS, "refcoco:train", "refcoco:val", "reason_seg:train", "reason_seg:val")


@dataclass(frozen=True)
class DemoVideoLisaConfig:
    """Where the demo of VideoLISA lies, how it departs from its config files, and what it is compared with."""

    out: Path = Path("build/demo-videolisa")
    """Folder for everything that this makes."""
    data: Path = LOOKS.data
    """Config file of `glus demo-data`: the videos are those of `make demo-looks`."""
    train: Path = CONFIGS / "demo_videolisa.yaml"
    """Config file of `glus train`."""
    glus_train: Path = LOOKS.train
    """The run whose segmenter the image encoder is pretrained for: its sizes are those of `train`."""
    data_changes: tuple[str, ...] = ("train_images=200", "valid_images=20")
    """Overrides for the data, as key=value."""
    train_changes: tuple[str, ...] = ()
    """Overrides for the training, as key=value."""
    encoder_changes: tuple[str, ...] = ()
    """Overrides for the image encoder's, as key=value."""
    glus: Path = Path("build/looks/eval/clips/scores.json")
    """Scores of the GLUS to print next to it: those of `make demo-looks`, where they are there."""
    splits: tuple[str, ...] = SPLITS
    """What is evaluated."""


def demo_videolisa(config: DemoVideoLisaConfig) -> int:
    """Run what is not done yet, then write OUT/summary.json and print it.

    Returns 0, or the exit code of the stage that failed (it printed why). Raises LaunchError where OUT holds what this
    did not make.
    """
    stages = Stages(config.out, total=5)
    with_terminate_as_interrupt()
    try:
        for stage in data_stages(config.out, config.data, config.data_changes, DATASETS):
            stages.run(stage)
        stages.run(encoder_stage(config.out, config.glus_train, (), config.encoder_changes))
        run, scored = config.out / "run", config.out / "eval"
        stages.run(training_stage(config.out, run, config.train, config.train_changes))
        stages.run(evaluation_stage(config.out, run, scored, config.splits, "Demo, VideoLISA"))
    except StageFailed as failed:
        return failed.report("glus demo-videolisa")
    _summarise(config, stages)
    return 0


def _summarise(config: DemoVideoLisaConfig, stages: Stages) -> None:
    scores = read_summary(config.out / "eval" / "scores.json")
    kinds = _with_all(scores)
    results = took(config.out, stages, set_up_seconds()) | {
        "jf_by_kind": kinds,
        "by_benchmark": benchmarks_of(scores),
    }
    meaning = {
        "jf_by_kind": "mean J&F over the expressions of a kind (or all), of videos that the model has not seen",
        "seconds": "all stages, each as long as it took when it last ran, and what lies between them, wall clock",
    }
    other = _with_all(read_summary(config.glus)) if config.glus.is_file() else {}
    if other:
        results |= {"glus_jf_by_kind": other}
        meaning |= {"glus_jf_by_kind": f"the same of {config.glus}"}
    summary = write_summary(config.out, results, meaning)
    table = Table(box=box.SIMPLE_HEAD, title="J&F on held-out videos", title_justify="left")
    for name in ("", "VideoLISA", *(["GLUS"] if other else [])):
        table.add_column(name, justify="right" if name else "left")
    for kind, value in kinds.items():
        table.add_row(cell(kind), *(shown(each) for each in (value, *([other.get(kind)] if other else []))))
    Console().print(table)
    print_cost(summary)
    print(f"report: {config.out / 'eval' / 'report.html'}")
    print(f"results: {config.out / 'summary.json'}")
    print_mlflow(config.out)


def _with_all(summary: Summary) -> dict[str, float | None]:
    """J&F of all expressions, then by their kind."""
    return {"all": summary.overall.JF} | kinds_of(summary)
