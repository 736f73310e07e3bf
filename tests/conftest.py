"""Settings of all tests, and a training run that is small enough for them."""

import gc
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if gc.isenabled():
    gc.disable()  # until all tests are collected, as common/imports.py does

import torch
from hypothesis import settings

# Before torch begins. Several ranks share this machine's cores in tests, which few GPUs allow; what SLURM gave this
# shell is no matter of the tests either. GLUS_TEST_CUDA=1 leaves the GPUs to them.
if os.environ.get("GLUS_TEST_CUDA", "0") in ("", "0"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for _name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "GLUS_DEVICE"):
        os.environ.pop(_name, None)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores, and waiting threads would spin

from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig
from glus.launch.config.configuration import load_config
from glus.training.run_config import RunConfig
from glus.training.tracking.mlflow_client import reach
from glus.training.tracking.tracking_place import TrackingConfig

# A spawned process imports a test's own functions as `tests.FOLDER.test_MODULE`, so the repository must be on its path
# (multiprocessing hands ours on). Last, not first: a bare `training` stays sam2's and never becomes ours.
sys.path.append(str(Path(__file__).parents[1]))

from tests.once import made_once
from tests.warm.starting import leased, start_server, started_by

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A slow example on a busy machine is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_ROOT = Path(__file__).parents[1]
TINY_RUN = _ROOT / "tests" / "tiny_run.yaml"
TINY_SPLITS = (("mevis", "train"), ("ref_davis17", "train"), ("mevis", "valid_u"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here, not in tests/model: pytest takes options from the conftest of every run alone."""
    parser.addoption(
        "--reference-fixture",
        metavar="FOLDER",
        help="recorded outputs of the reference (expected.json, expected.npz) to hold the model against; "
        "the default is the recording in tests/data/parity",
    )
    parser.addoption(
        "--videolisa-fixture",
        metavar="FOLDER",
        help="recorded outputs of the public VideoLISA; the default is the recording in tests/data/parity_videolisa",
    )


#: Fixtures that take seconds: tests that use them are slow.
SLOW_FIXTURES = {"answering_run", "segmented", "trained", "unpacked"}


#: Groups with one of these come first, in this order, so that no process ends with a long one while the other is idle.
LONG = ("slurm", "ray", "ranks", "slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage again, once the libraries that tests import are there; also where xdist's processes have them."""
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a slow fixture makes slow, and give several processes the long groups first."""
    longest: dict[str, int] = {}
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
        group = group_of(item.nodeid)
        marks = {mark.name for mark in item.iter_markers()} | {Path(group).name}
        place = next((number for number, name in enumerate(LONG) if name in marks), len(LONG))
        longest[group] = min(place, longest.get(group, place))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: longest[group_of(item.nodeid)])


def group_of(test: str) -> str:
    """What one process runs: tests of one file share its fixtures, those of tests/slurm one SLURM."""
    file = test.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder.endswith("tests/slurm") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a group to one process. xdist 3.8 marks groups in a field that pytest 9.2 does not read."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # else groups of many tests come first, long ones last
    return ByGroup(config, log)


@pytest.fixture(scope="module", autouse=True)
def frozen_libraries() -> None:
    """Leave what is there by now out of garbage collections: DeepSpeed asks for several, each half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """So small a model gains nothing by more threads, which round in another way and wait on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A Chromium that tests open pages in; they are skipped where none is installed."""
    from tests.browsing import started_browser

    with started_browser() as started:
        yield started


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program that stands for Python and starts in a tenth of a second (tests/warm)."""
    with leased(made_once(tmp_path_factory, "warm", start_server)) as python:
        yield python


@pytest.fixture
def warm(warm_python: Path) -> Iterator[None]:
    """Commands, ranks and processes that the test starts come from one that has imported the libraries."""
    with started_by(warm_python):
        yield


@pytest.fixture
def complaints() -> list[str]:
    """What the browser says on its console or fails to load."""
    return []


@pytest.fixture(autouse=True)
def usual_scheduling() -> Iterator[None]:
    """No test leaves a real-time process behind, as SVT-AV1's encoder does for root: all that follows would starve."""
    yield
    policy = os.sched_getscheduler(0)
    if policy != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail(f"the test gave this process the scheduling policy {policy} (sched(7)), which its children inherit")


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw/ (demo data, a tokenizer) and shards/ (TINY_SPLITS), made by the real writers."""
    return made_once(tmp_path_factory, "demo", _make_demo)


def _make_demo(root: Path) -> None:
    world = DemoWorldConfig(frames=6, width=64, height=48)
    write_demo_data(DemoDataConfig(root / "raw", train_videos=2, valid_videos=1, world=world))
    for dataset, name in TINY_SPLITS:
        split = read_dataset(dataset, root / "raw", name)
        jobs = plan_jobs(split, root / "raw", root / "shards" / dataset / name, 2)
        maker = ShardMaker()
        for job in jobs:
            maker.make(job)
        finish_split(split, jobs)


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and one empty experiment, to be copied: the tables take 2 s."""
    return _database(tmp_path_factory)


def _database(folders: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        reach(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="other"))

    return made_once(folders, "database", make) / "mlflow.db"


@pytest.fixture(scope="session")
def tiny_run(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    """A run of tiny_run.yaml on the tiny demo data: `tiny_run(out, "steps=3", ...)`. Its database has its tables."""

    def make(out: Path, *changes: Any) -> RunConfig:
        database = out.parent / "mlflow.db"
        places = [
            f"out={out}",
            f"shards={tiny_demo}/shards",
            f"model.tokenizer={tiny_demo}/raw/tokenizer.model",
            f"tracking.uri=sqlite:///{database}",
        ]
        config = load_config(RunConfig, TINY_RUN, [*places, *changes])
        if config.tracking.uri == f"sqlite:///{database}" and out.parent.is_dir() and not database.exists():
            shutil.copy(_database(tmp_path_factory), database)
        return config

    return make


@pytest.fixture(scope="session")
def answering_run(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after twelve quick steps: enough to answer with [SEG]. Dice alone, so that masks are not all empty
    yet. Tests read it only.
    """
    # Here, not above: most tests need no training.
    from glus.training.distributed import Rank
    from glus.training.train import train

    changes = ("steps=12", "optimizer.learning_rate=0.01", "model.loss.mask_bce=0", "model.loss.mask_dice=4")

    def make(folder: Path) -> None:
        train(tiny_run(folder / "run", *changes), Rank(0, 0, 1))

    return made_once(tmp_path_factory, "answering", make) / "run"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that installing the wheel would fill. Built from a copy: building writes into the source folder."""
    return made_once(tmp_path_factory, "wheel", _build_wheel) / "site"


def _build_wheel(folder: Path) -> None:
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (_ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((_ROOT / name).read_bytes())
        elif (_ROOT / name).is_symlink():  # src/glus
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to((_ROOT / name).readlink())
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("glus-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
