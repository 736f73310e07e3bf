"""The stages that the demos share: data, shards, image encoder, training, evaluation. Each is a command of `glus`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from glus.launch.stages import Stage, checkpoint_files
from glus.training.tracking.mlflow_client import TRAINING_PAGE

CONFIGS = Path(__file__).parents[1] / "configs"
#: The config files of `glus pretrain-encoder` and `glus evaluate` for all demos.
ENCODER_CONFIG, EVALUATE_CONFIG = CONFIGS / "demo_encoder.yaml", CONFIGS / "demo_evaluate.yaml"
#: Set by `make demo` before it makes the environment, in seconds since the epoch.
STARTED = "GLUS_DEMO_STARTED"
#: Of MLflow.
EXPERIMENT = "demo"
DATA, PREPARE, ENCODER = "demo data", "prepare", "image encoder"
DATA_CODE = ("data_pipeline",)
TRAIN_CODE = (*DATA_CODE, "model", "training")
EVALUATE_CODE = (*TRAIN_CODE, "evaluation")


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


def encoder_stage(out: Path, run: Path, run_changes: tuple[str, ...], changes: tuple[str, ...]) -> Stage:
    """Pretrain OUT's image encoder for the segmenter of the run in the config file `run`.

    `run_changes` and `changes` are overrides for that run and for the pretraining, as key=value.
    """
    file = encoder_file(out)
    of_run = (f"shards={out / 'shards'}", *run_changes)
    words = (
        *("pretrain-encoder", str(ENCODER_CONFIG), f"out={file}", f"run={run}"),
        *(f"run_changes=[{', '.join(of_run)}]", *changes),
    )
    return Stage(ENCODER, words, makes=(file,), inputs=(run, *shard_manifests(out)), code=TRAIN_CODE)


def encoder_file(out: Path) -> Path:
    """The pretrained image encoder, in the layout of SAM 2's files."""
    return out / "sam2_hiera_demo.pt"


def shard_manifests(out: Path) -> tuple[Path, ...]:
    """The manifests of OUT/shards, whose digests identify their content."""
    return tuple(sorted((out / "shards").glob("*/*/manifest.json")))


def training_stage(
    out: Path, run: Path, train: Path, changes: Sequence[str], start: Path | None = None, name: str = "train"
) -> Stage:
    """Train on OUT's shards into the folder `run`, by the config file `train` and its overrides.

    It starts from the last checkpoint of the folder `start`, or without one from OUT's pretrained image encoder.
    """
    begins = f"init_from={start}" if start else f"weights.segmenter={encoder_file(out)}"
    words = (
        *("train", str(train), f"out={run}", f"shards={out / 'shards'}"),
        *(f"model.tokenizer={out / 'raw' / 'tokenizer.model'}", f"tracking.uri={tracking_place(out)}"),
        *(f"tracking.experiment={EXPERIMENT}", begins, *changes),
    )
    weights = checkpoint_files(start) if start else (encoder_file(out),)
    return Stage(name, words, makes=(run,), inputs=(*weights, *shard_manifests(out)), code=TRAIN_CODE)


def evaluation_stage(
    out: Path, run: Path, makes: Path, splits: tuple[str, ...], title: str, name: str = "evaluate"
) -> Stage:
    """Evaluate the last checkpoint of the folder `run` on OUT's shards, as all demos do."""
    words = (
        *("evaluate", str(EVALUATE_CONFIG), f"checkpoint={run}"),
        *(f"shards={out / 'shards'}", f"out={makes}"),
        *(f"splits=[{', '.join(splits)}]", f"title={title}"),
    )
    inputs = (*checkpoint_files(run), *shard_manifests(out))
    return Stage(name, words, makes=(makes,), inputs=inputs, code=EVALUATE_CODE)


def tracking_place(out: Path) -> str:
    """MLflow's records of OUT, as a URI."""
    return f"sqlite:///{out / 'mlflow.db'}"


def print_mlflow(out: Path) -> None:
    """Print the command that serves MLflow's page, as it runs from here, and the page's address."""
    mlflow = Path(sys.executable).with_name("mlflow")
    shown: Path | str = mlflow if mlflow.is_file() else "mlflow"
    if isinstance(shown, Path) and shown.is_relative_to(Path.cwd()):
        shown = shown.relative_to(Path.cwd())
    served = f"{shown} ui --backend-store-uri {tracking_place(out)}"
    # The first experiment that is made in a new file.
    print(f"MLflow's page: {served}, then open http://127.0.0.1:5000{TRAINING_PAGE.format(1)}")
