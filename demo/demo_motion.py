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
    data_stages,
    encoder_file,
    encoder_stage,
    evaluation_stage,
    print_mlflow,
    set_up_seconds,
    shard_manifests,
    tracking_place,
)
from glus.demo.demo_summary import kinds_of, print_cost, read_summary, shown, took, write_summary
from glus.demo.synthetic.demo_datasets import TWINS
from glus.evaluation.results.summary import Summary
from glus.launch.stages import Stage, StageFailed, Stages, checkpoint_files, with_terminate_as_interrupt

TWIN_SPLIT = "demo_twins/valid"
#: What is drawn: those whose training videos the stages read.
DATASETS = ("mevis", "refer_youtube_vos", "ref_davis17", "revos")
_MASKS = ("model.loss.mask_bce=2", "model.loss.mask_dice=2", "model.loss.cross_entropy=0.05")
_DECODER = (
    '"segmenter.sam2.sam_mask_decoder.*"',
    "segmenter.sam2.no_mem_embed",
    '"segmenter.sam2.sam_prompt_encoder.no_mask_embed.*"',
)
_MEMORY = ('"segmenter.sam2.memory_attention.*"', '"segmenter.sam2.memory_encoder.*"')
_HEADS = ('"stand_ins.place.*"', '"stand_ins.language.*"')
#: What one frame shows.
_SINGLE = (
    *("sampling.single_frame=true", "sampling.context_frames=0", "sampling.expressions=3"),
    *("sampling.kinds=[look, relation]", "model.segmenter.use_memory=false"),
    # Of sampling.attributes in configs/motion.yaml: shape and colour.
    "model.stand_ins.language_groups=[1, 2]",
)
_CLIPS = "sampling.kinds=[look, motion, relation]"


@dataclass(frozen=True)
class MotionStage:
    """One training: what it starts from, how it departs from configs/motion.yaml, what it trains."""

    name: str
    start: str
    changes: tuple[str, ...]
    trains: tuple[str, ...]
    evaluated: bool = False


def _steps(steps: int, fall: int, videos: int) -> tuple[str, ...]:
    """Steps of a stage, of which the learning rate falls in the last `fall`, with so many videos each."""
    of_batch = (f"global_batch_size={videos}", f"engine.micro_batch_size={videos // 2}")
    return (f"steps={steps}", f"optimizer.decay_steps={fall}", *of_batch)


#: In order. What each stands in for: docs/study.md.
STAGES = (
    MotionStage(
        "words_of_tower",
        "",
        (*_steps(300, 270, 32), "model.stand_ins.tower=1", "sampling.context_frames=0", "sampling.expressions=1"),
        ('"language.vision_tower.*"', '"stand_ins.tower.*"'),
    ),
    MotionStage(
        "words_of_language",
        "words_of_tower",
        (*_steps(1200, 400, 32), "model.stand_ins.language=1", "sampling.expressions=1"),
        (
            *('"language.vision_tower.*"', '"language.mm_projector.*"', '"language.llama.model.layers.[01].*"'),
            *('"language.llama.model.embed_tokens.*"', '"stand_ins.language.*"'),
        ),
    ),
    MotionStage(
        "masks_in_frames",
        "words_of_language",
        (*_steps(900, 300, 24), *_SINGLE, *_MASKS, "model.stand_ins.place=0.5", "model.stand_ins.language=0.5"),
        ('"language.*"', *_HEADS, *_DECODER),
    ),
    MotionStage(
        "memory",
        "masks_in_frames",
        (
            *(*_steps(260, 100, 8), *_MASKS[:2], "model.stand_ins.unprompted=1", "sampling.query_frames=4"),
            *("sampling.expressions=2", "sampling.kinds=[look, relation]"),
        ),
        (*_DECODER, *_MEMORY),
    ),
    MotionStage(
        "places_in_clips",
        "memory",
        (*_steps(1800, 500, 16), _CLIPS, "model.stand_ins.place=1", "model.stand_ins.language=0.5"),
        ('"language.*"', *_HEADS),
    ),
    MotionStage(
        "clips",
        "places_in_clips",
        (
            *(*_steps(500, 200, 8), _CLIPS, *_MASKS, "model.stand_ins.language=0.3"),
            "sampling.query_frames=1",
        ),
        ('"language.*"', _HEADS[1], *_DECODER),
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
    splits: tuple[str, ...] = (TWIN_SPLIT, *SPLITS[:3])
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
        drawn = (f"datasets=[{', '.join(DATASETS)}]", *config.data_changes)
        for each in data_stages(config.out, config.data, drawn, (*DATASETS, *TWINS)):
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
