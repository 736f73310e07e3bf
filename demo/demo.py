"""`glus demo`: data, training and evaluation on this machine. Each stage is a command of `glus` in its own process."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from glus.demo.demo_summary import print_summary, summarise_demo
from glus.demo.synthetic.demo_datasets import VIDEO_DATASETS
from glus.launch.stages import Stage, StageFailed, Stages, checkpoint_files, with_terminate_as_interrupt
from glus.training.tracking.mlflow_client import TRAINING_PAGE

CONFIGS = Path(__file__).parents[1] / "configs"
SPLITS = ("mevis/valid_u", "ref_davis17/valid", "revos/valid", "reason_vos/valid")
#: Set by `make demo` before it makes the environment, in seconds since the epoch.
STARTED = "GLUS_DEMO_STARTED"

EXPERIMENT = "demo"
DATA, PREPARE, ENCODER, COMPARE = "demo data", "prepare", "image encoder", "compare"
DATA_CODE = ("data_pipeline",)
TRAIN_CODE = (*DATA_CODE, "model", "training")
EVALUATE_CODE = (*TRAIN_CODE, "evaluation")


@dataclass(frozen=True)
class DemoRun:
    """One of the trainings that are compared: how it departs from the config file, and where it lies below OUT.

    It starts from the weights of the run `start`, or without one from the pretrained image encoder.
    """

    name: str
    folder: str
    start: str = ""
    changes: tuple[str, ...] = ()


#: What learns where there is no memory.
WITHOUT_MEMORY = (
    *('"*lora_*"', "language.llama.model.embed_tokens.*", "language.llama.lm_head.*"),
    *("segmenter.sam2.sam_mask_decoder.*", "segmenter.sam2.no_mem_embed"),
    "segmenter.sam2.sam_prompt_encoder.no_mask_embed.*",
)
#: As LISA before GLUS: a model of single frames, without memory, from which the others start.
SINGLE_FRAMES = DemoRun("single_frames", "run-single-frames")
#: The last three say what clips, training and the contrastive loss bring.
RUNS = (
    DemoRun("trained", "run", SINGLE_FRAMES.folder),
    SINGLE_FRAMES,
    DemoRun("untrained", "run-untrained", changes=("steps=0", "ranks=1")),
    DemoRun("without_contrastive", "run-without-contrastive", SINGLE_FRAMES.folder, ("model.loss.contrastive=0",)),
)


@dataclass(frozen=True)
class DemoConfig:
    """Where the demo lies, and how it departs from its config files."""

    out: Path = Path("build/demo")
    """Folder for everything that the demo makes."""
    data: Path = CONFIGS / "demo_data.yaml"
    """Config file of `glus demo-data`."""
    train: Path = CONFIGS / "demo.yaml"
    """Config file of `glus train`."""
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
    single_frames: tuple[str, ...] = (
        *("steps=900", "global_batch_size=24", "engine.micro_batch_size=12", "optimizer.learning_rate=1.2e-3"),
        *("sampling.single_frame=true", "sampling.context_frames=1", "sampling.query_frames=1"),
        *("model.segmenter.use_memory=false", f"trainable=[{', '.join(WITHOUT_MEMORY)}]", "model.loss.contrastive=0"),
    )
    """How the training on single frames departs from the others, as key=value."""
    splits: tuple[str, ...] = SPLITS
    """What is evaluated."""


def demo(config: DemoConfig) -> int:
    """Run what is not done yet, then write OUT/summary.json and print it.

    Returns 0, or the exit code of the stage that failed (it printed why). Raises LaunchError where OUT holds what the
    demo did not make.
    """
    stages = Stages(config.out, total=4 + 2 * len(RUNS))
    with_terminate_as_interrupt()
    try:
        for stage in data_stages(config.out, config.data, config.data_changes, VIDEO_DATASETS):
            stages.run(stage)
        stages.run(
            encoder_stage(config.out, config.encoder, config.train, config.train_changes, config.encoder_changes)
        )
        for run in sorted(RUNS, key=lambda run: bool(run.start)):
            stages.run(_training(config, run))
        for run in RUNS:
            stages.run(_evaluation(config, run))
        stages.run(_comparison(config))
    except StageFailed as failed:
        return failed.report("glus demo")
    summary = summarise_demo(config.out, {run.name: f"eval/{run.name}" for run in RUNS}, stages, set_up_seconds())
    print_summary(summary)
    _print_places(config.out)
    return 0


def set_up_seconds() -> float | None:
    """Seconds from STARTED to the start of this process; None where it is not set."""
    try:
        return max(0.0, psutil.Process().create_time() - float(os.environ[STARTED]))
    except (KeyError, ValueError):
        return None


def data_stages(out: Path, data: Path, changes: tuple[str, ...], datasets: Sequence[str]) -> tuple[Stage, Stage]:
    """Draw OUT/raw by the config file `data` and its overrides, and prepare OUT/shards of `datasets`."""
    raw, shards = out / "raw", out / "shards"
    drawn = ("demo-data", str(data), f"root={raw}", *changes)
    prepared = ("prepare", f"datasets=[{', '.join(datasets)}]", f"root={raw}", f"out={shards}")
    return (
        Stage(DATA, drawn, makes=(raw,), code=(*DATA_CODE, "demo/synthetic")),
        Stage(PREPARE, prepared, makes=(shards,), inputs=(raw / "demo_data.json",), code=DATA_CODE),
    )


def encoder_stage(out: Path, encoder: Path, run: Path, run_changes: tuple[str, ...], changes: tuple[str, ...]) -> Stage:
    """Pretrain OUT's image encoder by the config file `encoder`, for the segmenter of the run in the config file `run`.

    `run_changes` and `changes` are overrides for the two, as key=value.
    """
    file = encoder_file(out)
    of_run = (f"shards={out / 'shards'}", *run_changes)
    words = (
        *("pretrain-encoder", str(encoder), f"out={file}", f"run={run}"),
        *(f"run_changes=[{', '.join(of_run)}]", *changes),
    )
    return Stage(ENCODER, words, makes=(file,), inputs=(run, *shard_manifests(out)), code=TRAIN_CODE)


def encoder_file(out: Path) -> Path:
    """The pretrained image encoder, in the layout of SAM 2's files."""
    return out / "sam2_hiera_demo.pt"


def _training(config: DemoConfig, run: DemoRun) -> Stage:
    folder, start = config.out / run.folder, config.out / run.start
    begins = f"init_from={start}" if run.start else f"weights.segmenter={encoder_file(config.out)}"
    words = (
        *("train", str(config.train), f"name={run.name}", f"out={folder}", f"shards={config.out / 'shards'}"),
        *(f"model.tokenizer={config.out / 'raw' / 'tokenizer.model'}", f"tracking.uri={tracking_place(config.out)}"),
        *(f"tracking.experiment={EXPERIMENT}", begins),
        *(config.single_frames if run is SINGLE_FRAMES else ()),
        *(*config.train_changes, *run.changes),
    )
    weights = checkpoint_files(start) if run.start else (encoder_file(config.out),)
    inputs = (*weights, *shard_manifests(config.out))
    return Stage(f"train {run.name}", words, makes=(folder,), inputs=inputs, code=TRAIN_CODE)


def shard_manifests(out: Path) -> tuple[Path, ...]:
    """The manifests of OUT/shards, whose digests identify their content."""
    return tuple(sorted((out / "shards").glob("*/*/manifest.json")))


def _evaluation(config: DemoConfig, run: DemoRun) -> Stage:
    makes, title = config.out / "eval" / run.name, f"Demo, {run.name.replace('_', ' ')}"
    trained = config.out / run.folder
    return evaluation_stage(config.out, config.evaluate, trained, makes, config.splits, title, f"evaluate {run.name}")


def evaluation_stage(
    out: Path, evaluate: Path, run: Path, makes: Path, splits: tuple[str, ...], title: str, name: str = "evaluate"
) -> Stage:
    """Evaluate the last checkpoint of the folder `run` on OUT's shards, by the config file `evaluate`."""
    words = (
        *("evaluate", str(evaluate), f"checkpoint={run}"),
        *(f"shards={out / 'shards'}", f"out={makes}"),
        *(f"splits=[{', '.join(splits)}]", f"title={title}"),
    )
    inputs = (*checkpoint_files(run), *shard_manifests(out))
    return Stage(name, words, makes=(makes,), inputs=inputs, code=EVALUATE_CODE)


def _comparison(config: DemoConfig) -> Stage:
    from glus.training.checkpoints import checkpoint

    # By id: a run that was begun again leaves one of the same name behind.
    ids = [checkpoint.read_state(checkpoint.resolve(config.out / run.folder)).tracking_run for run in RUNS]
    words = (
        *(
            "compare",
            *ids,
            f"out={config.out / 'compare'}",
            "title=Demo: trained, single frames, untrained, not contrastive",
        ),
        *(f"tracking.uri={tracking_place(config.out)}", f"tracking.experiment={EXPERIMENT}"),
    )
    scores = tuple(config.out / "eval" / run.name / "scores.json" for run in RUNS)
    return Stage(COMPARE, words, makes=(config.out / "compare",), inputs=scores, code=("evaluation",))


def tracking_place(out: Path) -> str:
    """MLflow's records of OUT, as a URI."""
    return f"sqlite:///{out / 'mlflow.db'}"


def _print_places(out: Path) -> None:
    for run in RUNS:
        print(f"report, {run.name.replace('_', ' ')}: {out / 'eval' / run.name / 'report.html'}")
    print(f"pictures: {out / 'eval' / RUNS[0].name / 'overlays'}")
    print(f"runs side by side: {out / 'compare' / 'comparison.html'}")
    print(f"results: {out / 'summary.json'}")
    print_mlflow(out)


def print_mlflow(out: Path) -> None:
    """Print the command that serves MLflow's page, as it runs from here, and the page's address."""
    mlflow = Path(sys.executable).with_name("mlflow")
    shown: Path | str = mlflow if mlflow.is_file() else "mlflow"
    if isinstance(shown, Path) and shown.is_relative_to(Path.cwd()):
        shown = shown.relative_to(Path.cwd())
    served = f"{shown} ui --backend-store-uri {tracking_place(out)}"
    # The first experiment that is made in a new file.
    print(f"MLflow's page: {served}, then open http://127.0.0.1:5000{TRAINING_PAGE.format(1)}")
