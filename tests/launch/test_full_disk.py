"""A disk that fills up while a command writes: one line, exit code 2, and nothing half-written."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from glus.common.atomic import atomic_open, disk_fault
from glus.common.errors import InputError
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.launch.cli import main
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig
from tests.untrained import write_checkpoint

pytestmark = pytest.mark.slow


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing a file's byte behind `size` fails, as on a full disk (EFBIG for ENOSPC)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def checkpoint(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_demo, tmp_path_factory.mktemp("untrained"))


@pytest.mark.parametrize("size", [100, 20_000, 200_000])
@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_an_export_is_whole_or_absent(
    checkpoint: Path, tmp_path: Path, form: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(size):
        code = main(["export", str(checkpoint), f"out={tmp_path / 'release'}", f"form={form}"])
    shown = capsys.readouterr().err
    assert (code, shown.count("\n")) == (2, 1), shown
    assert "cannot be written" in shown and list(tmp_path.iterdir()) == []


Command = Callable[[Path, Path], list[str]]


@pytest.mark.parametrize(
    "words",
    [
        lambda demo, out: ["demo-data", f"root={out}/raw", "train_videos=1", "valid_videos=1"],
        lambda demo, out: ["data", "show", f"shards={demo}/shards", f"out={out}/sheet.png"],
        lambda demo, out: ["data", "stats", f"shards={demo}/shards", f"out={out}/stats.json"],
    ],
    ids=["demo-data", "data show", "data stats"],
)
def test_a_command_leaves_nothing_half_written(
    tiny_demo: Path, tmp_path: Path, words: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(100):
        code = main(words(tiny_demo, tmp_path))
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("glus ")]
    assert code == 2 and len(lines) == 1, lines
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("command", ["evaluate", "segment"])
def test_a_command_with_a_model_leaves_nothing_half_written(
    checkpoint: Path, tiny_demo: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video = next((tiny_demo / "raw" / "mevis" / "valid_u" / "JPEGImages").iterdir())
    words = {
        "evaluate": [f"checkpoint={checkpoint}", f"shards={tiny_demo}/shards", "record=false", "processes=1"],
        "segment": [str(video), "the circle", f"weights={checkpoint}"],
    }
    with files_of_at_most(80):
        code = main([command, *words[command], f"out={tmp_path}/out"])
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("glus ")]
    assert code == 2 and len(lines) == 1 and "cannot be written" in lines[0], lines
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_comparison_leaves_nothing_half_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with Tracker.start(TrackingConfig(uri=uri), "plain", {"rate": 1}) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
    with files_of_at_most(80):
        code = main(["compare", "plain", f"tracking.uri={uri}", f"out={tmp_path}/pages"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("glus ")]
    assert code == 2 and len(lines) == 1 and "cannot be written" in lines[0], lines
    assert [path for path in (tmp_path / "pages").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("size", [0, 1])
def test_a_lock_that_cannot_be_signed_leaves_no_folder(
    tiny_demo: Path, tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"predictions={tmp_path}/none", f"shards={tiny_demo}/shards", f"out={tmp_path}/out"]
    with files_of_at_most(size):
        assert main(["score", *words]) == 2
    assert capsys.readouterr().err.startswith("glus score: ") and list(tmp_path.iterdir()) == []


def test_a_shard_is_whole_or_absent(tiny_demo: Path, tmp_path: Path) -> None:
    split = read_dataset("mevis", tiny_demo / "raw", "train")
    [job, *_] = plan_jobs(split, tiny_demo / "raw", tmp_path / "shards", 2)
    with files_of_at_most(1000), pytest.raises(InputError, match="cannot be written"):
        ShardMaker().make(job)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_tensor_file_of_torch_is_whole_or_absent(tmp_path: Path) -> None:
    with files_of_at_most(1000), pytest.raises(InputError, match="cannot be written"):
        with atomic_open(tmp_path / "encoder.pt") as file:
            torch.save({"a": torch.zeros(10_000)}, file)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_disk_is_no_bug() -> None:
    assert disk_fault(OSError(28, "No space left on device", "/x/y")).startswith("/x/y: No space left on device: ")
    assert "disk is full" in disk_fault(RuntimeError("PytorchStreamWriter failed writing file data/0"))
    assert disk_fault(FileNotFoundError(2, "No such file", "/x")) == "" == disk_fault(ValueError("5"))
