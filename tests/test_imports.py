"""Who may import whom (docs/architecture.md), read off the source of every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "common": set(),
    "data_pipeline": {"common"},
    "model": {"common"},
    "training": {"common", "data_pipeline", "model"},
    "evaluation": {"common", "data_pipeline", "model", "training"},
    "launch": {"common", "data_pipeline", "model", "training", "evaluation"},
    "demo": {"common", "data_pipeline", "model", "training", "evaluation", "launch"},
}
ONLY_FILE = {
    "ray": "data_pipeline/shards/ray_workers.py",
    "webdataset": "data_pipeline/shards/tar.py",
    "av": "data_pipeline/raw/video_file.py and evaluation/segment/video_writer.py",
    "decord": "data_pipeline/raw/video_file.py",
    "simplejpeg": "data_pipeline/raw/jpeg.py",
    "fsspec": "data_pipeline/shards/storage.py",
    "pyarrow": "data_pipeline/shards/index_table.py and data_pipeline/sampling/frame_table.py"
    " and evaluation/results/frame_scores.py",
    "sam2": "model/sam2_parts.py",
    "deepspeed": "training/engines/deepspeed_engine.py",
    "mlflow": "training/tracking/mlflow_client.py",
    "gradio": "evaluation/segment/web_page.py",
    "huggingface_hub": "model/released/hub.py and launch/commands/model_card.py",
}
LONGEST_FILE = 400

SOURCES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import anywhere in a file, in functions too, by statement or by import_module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from glus import training` names the folder in the list
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def broken_rules(path_name: str, source: str) -> list[str]:
    """The import rules that a file breaks, as messages."""
    folder = path_name.split("/")[0]
    broken = []
    for line, name in imports(ast.parse(source)):
        where, parts = f"{path_name}:{line}", name.split(".")
        if parts[0] == "glus" and len(parts) > 1 and folder in MAY_IMPORT:
            other = parts[1]
            if other in MAY_IMPORT and other != folder and other not in MAY_IMPORT[folder]:
                broken.append(f"{where}: {folder} may not import {other}")
        if parts[0] in MAY_IMPORT:
            broken.append(f"{where}: bare {parts[0]!r}; write glus.{parts[0]} (sam2 installs a `training` of its own)")
        if name.startswith(".") and folder in MAY_IMPORT:
            broken.append(f"{where}: relative import; write glus.{folder}")
        if parts[0] == "torchvision":
            broken.append(f"{where}: torchvision is not installed")
        if parts[0] in ONLY_FILE and folder in MAY_IMPORT and path_name not in ONLY_FILE[parts[0]].split(" and "):
            broken.append(f"{where}: {parts[0]} is imported in {ONLY_FILE[parts[0]]} only")
    return broken


def test_every_file_keeps_the_import_rules() -> None:
    broken = [rule for path in EVERYTHING for rule in broken_rules(name_of(path), path.read_text(encoding="utf-8"))]
    assert broken == []


def test_every_file_is_short_enough_to_be_one_idea() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


@pytest.mark.parametrize(
    ("path_name", "source", "message"),
    [
        ("model/a.py", "from glus.training.tracking.tracking import Tracker", "model may not import training"),
        (
            "common/a.py",
            "from glus.data_pipeline.raw.records import VideoRecord",
            "common may not import data_pipeline",
        ),
        ("model/a.py", "from glus import data_pipeline", "model may not import data_pipeline"),
        ("data_pipeline/a.py", "def f():\n    import glus.model.glus", "data_pipeline may not import model"),
        ("training/a.py", "import importlib\nimportlib.import_module('glus.launch.cli')", "may not import launch"),
        ("training/a.py", "import training.trainer", "bare 'training'"),
        ("tests/a.py", "from model.glus import Glus", "bare 'model'"),
        ("training/a.py", "from .errors import TrainingError", "relative import"),
        ("model/a.py", "from torchvision import ops", "torchvision"),
        ("training/trainer.py", "import mlflow", "mlflow is imported in training/tracking/mlflow_client.py only"),
        ("data_pipeline/batches/loader.py", "from webdataset import WebDataset", "webdataset is imported in"),
    ],
)
def test_a_broken_rule_is_seen(path_name: str, source: str, message: str) -> None:
    [told] = broken_rules(path_name, source)
    assert message in told


def test_what_is_allowed_passes() -> None:
    assert broken_rules("launch/a.py", "import os\nfrom glus.evaluation.score.jf import jf_per_frame") == []
    assert (
        broken_rules("training/tracking/mlflow_client.py", "def f():\n    from mlflow.tracking import MlflowClient")
        == []
    )


def test_the_rule_covers_every_folder_of_code() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)
    assert len(SOURCES) > len(MAY_IMPORT)
