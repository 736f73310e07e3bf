"""`glus demo-motion`: a small GLUS from scratch, in stages that are to make it see motion (docs/study.md)."""

from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from glus.common.terminal import cell
from glus.demo.demo import (
    CONFIGS,
    SPLITS,
    TRAIN_CODE,
    checkpoint_files,
    data_stages,
    encoder_file,
    encoder_stage,
    evaluation_stage,
    print_mlflow,
    set_up_seconds,
    shard_manifests,
    tracking_place,
    with_terminate_as_interrupt,
)
from glus.demo.demo_summary import kinds_of, print_cost, read_summary, shown, took, write_summary
from glus.demo.stages import Stage, StageFailed, Stages
from glus.demo.synthetic.demo_datasets import TWINS, VIDEO_DATASETS
from glus.evaluation.results.summary import Summary

TWIN_SPLIT = "demo_twins/valid"
_MASKS = ("model.loss.mask_bce=2", "model.loss.mask_dice=2", "model.loss.cross_entropy=0.05")
_DECODER = (
    '"segmenter.sam2.sam_mask_decoder.*"',
    "segmenter.sam2.no_mem_embed",
    '"segmenter.sam2.sam_prompt_encoder.no_mask_embed.*"',
)
_MEMORY = ('"segmenter.sam2.memory_attention.*"', '"segmenter.sam2.memory_encoder.*"')
_PLACE, _SINGLE = '"stand_ins.place.*"', ("sampling.single_frame=true", "sampling.context_frames=0")


@dataclass(frozen=True)
class MotionStage:
    """One training: what it starts from, how it departs from configs/motion.yaml, what it trains."""

    name: str
    start: str
    changes: tuple[str, ...]
    trains: tuple[str, ...]
    evaluated: bool = False


def _batch(videos: int) -> tuple[str, ...]:
    return (f"global_batch_size={videos}", f"engine.micro_batch_size={videos // 2}")


#: In order. What each stands in for: docs/study.md.
STAGES = (
    MotionStage(
        "words_of_tower",
        "",
        ("steps=400", "model.stand_ins.tower=1", "sampling.context_frames=0", "sampling.expressions=1", *_batch(32)),
        ('"language.vision_tower.*"', '"stand_ins.tower.*"'),
    ),
    MotionStage(
        "words_of_language",
        "words_of_tower",
        ("steps=460", "model.stand_ins.language=1", "sampling.expressions=1", *_batch(32)),
        (
            *('"language.vision_tower.*"', '"language.mm_projector.*"', '"language.llama.model.layers.[01].*"'),
            *('"language.llama.model.embed_tokens.*"', '"stand_ins.language.*"'),
        ),
    ),
    MotionStage(
        "single_frames",
        "words_of_language",
        (
            *("steps=800", "model.stand_ins.place=0.5", *_MASKS, *_SINGLE, *_batch(24), "sampling.expressions=3"),
            "model.segmenter.use_memory=false",
            "sampling.mixture={mevis/train: 1, refer_youtube_vos/train: 3, ref_davis17/train: 2, revos/train: 2}",
        ),
        ('"language.*"', _PLACE, *_DECODER),
        evaluated=True,
    ),
    MotionStage(
        "places",
        "single_frames",
        ("steps=700", "model.stand_ins.place=1", *_batch(16)),
        ('"language.*"', _PLACE),
    ),
    MotionStage(
        "clips",
        "places",
        ("steps=500", "model.stand_ins.place=0.5", *_MASKS, "sampling.query_frames=2", *_batch(8)),
        ('"language.*"', _PLACE, *_DECODER, *_MEMORY),
        evaluated=True,
    ),
)


@dataclass(frozen=True)
class DemoMotionConfig:
    """Where this demo lies, and how it departs from its config files."""

    out: Path = Path("build/motion")
    """Folder for everything that this makes."""
    data: Path = CONFIGS / "motion_data.yaml"
    """Config file of `glus demo-data`."""
    train: Path = CONFIGS / "motion.yaml"
    """Config file of `glus train`, which each stage changes."""
    encoder: Path = CONFIGS / "demo_encoder.yaml"
    """Config file of `glus pretrain-encoder`."""
    evaluate: Path = CONFIGS / "demo_evaluate.yaml"
    """Config file of `glus evaluate`."""
    data_changes: tuple[str, ...] = ()
    """Overrides for the data, as key=value."""
    train_changes: tuple[str, ...] = ()
    """Overrides for every training, as key=value."""
    encoder_changes: tuple[str, ...] = ()
    """Overrides for the image encoder's, as key=value."""
    splits: tuple[str, ...] = (TWIN_SPLIT, *SPLITS)
    """What is evaluated."""


def demo_motion(config: DemoMotionConfig) -> int:
    """Run what is not done yet, then write OUT/summary.json and print it.

    Returns 0, or the exit code of the stage that failed (it printed why). Raises LaunchError where OUT holds what this
    did not make.
    """
    evaluated = [stage for stage in STAGES if stage.evaluated]
    stages = Stages(config.out, total=3 + len(STAGES) + len(evaluated))
    with_terminate_as_interrupt()
    try:
        for each in data_stages(config.out, config.data, config.data_changes, (*VIDEO_DATASETS, *TWINS)):
            stages.run(each)
        stages.run(encoder_stage(config.out, config.encoder, config.train, (), config.encoder_changes))
        for stage in STAGES:
            stages.run(_training(config, stage))
        for stage in evaluated:
            run, scored, title = config.out / stage.name, config.out / "eval" / stage.name, stage.name.replace("_", " ")
            name = f"evaluate {title}"
            stages.run(evaluation_stage(config.out, config.evaluate, run, scored, config.splits, title, name))
    except StageFailed as failed:
        return failed.report("glus demo-motion")
    _summarise(config, stages, [stage.name for stage in evaluated])
    return 0


def _training(config: DemoMotionConfig, stage: MotionStage) -> Stage:
    out, start = config.out / stage.name, config.out / stage.start
    begins = f"init_from={start}" if stage.start else f"weights.segmenter={encoder_file(config.out)}"
    words = (
        *("train", str(config.train), f"name={stage.name}", f"out={out}", f"shards={config.out / 'shards'}"),
        *(f"model.tokenizer={config.out / 'raw' / 'tokenizer.model'}", f"tracking.uri={tracking_place(config.out)}"),
        *(begins, *stage.changes, f"trainable=[{', '.join(stage.trains)}]", *config.train_changes),
    )
    weights = checkpoint_files(start) if stage.start else (encoder_file(config.out),)
    return Stage(
        f"train {stage.name}", words, makes=(out,), inputs=(*weights, *shard_manifests(config.out)), code=TRAIN_CODE
    )


def _summarise(config: DemoMotionConfig, stages: Stages, names: list[str]) -> None:
    scored = {name: read_summary(config.out / "eval" / name / "scores.json") for name in names}
    twins = {name: _of_twins(each) for name, each in scored.items()}
    kinds = {name: {"all": each.overall.JF} | kinds_of(each) for name, each in scored.items()}
    results = took(config.out, stages, set_up_seconds()) | {"object_accuracy_of_twins": twins, "jf_by_kind": kinds}
    meaning = {
        "object_accuracy_of_twins": "share of frames of look-alike objects, in %, whose mask fits the target best",
        "jf_by_kind": "mean J&F over the expressions of a kind (or all), of videos that the model has not seen",
        "seconds": "all stages, each as long as it took when it last ran, and what lies between them, wall clock",
    }
    summary = write_summary(config.out, results, meaning)
    table = Table(box=box.SIMPLE_HEAD, title="Held-out videos", title_justify="left")
    for column in ("", *names):
        table.add_column(column.replace("_", " "), justify="right" if column else "left")
    table.add_row("twins, object accuracy", *(shown(twins[name]) for name in names))
    for kind in kinds[names[0]]:
        table.add_row(cell(f"J&F, {kind}"), *(shown(kinds[name].get(kind)) for name in names))
    Console().print(table)
    print_cost(summary)
    for name in names:
        print(f"report, {name.replace('_', ' ')}: {config.out / 'eval' / name / 'report.html'}")
    print(f"results: {config.out / 'summary.json'}")
    print_mlflow(config.out)


def _of_twins(summary: Summary) -> float | None:
    found = [each for each in summary.benchmarks if each.dataset == TWINS[0]]
    return found[0].metrics.object_accuracy if found else None
