"""State of the optimiser is read as data: a checkpoint with code is refused on resume, and its code never runs."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glus.common.errors import TrainingError
from glus.model.released.safe_pickle import only_data
from glus.training.build import build_for_training
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.integrity import note_digests
from glus.training.distributed import Rank
from glus.training.engines.choose import joined, make_engine
from glus.training.run_config import RunConfig
from glus.training.train import train

pytestmark = pytest.mark.slow

ALONE = Rank(0, 0, 1)


class Payload:
    """Writes a file where it is unpickled carelessly."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module", params=["3", "2", "plain"])
def trained(
    request: pytest.FixtureRequest, tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> RunConfig:
    """A run of one step that would go on to the second."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_run(folder / "run", "steps=1", f"engine.stage={request.param}")
    train(config, ALONE)
    return replace(config, steps=2)


@pytest.fixture
def marked(trained: RunConfig, tmp_path: Path) -> Iterator[tuple[RunConfig, Path]]:
    """A copy of the run, and a marker that no payload may write."""
    shutil.copytree(trained.out, tmp_path / "run")
    marker = tmp_path / "marker"
    yield replace(trained, out=str(tmp_path / "run")), marker
    assert not marker.exists()


def poisoned(config: RunConfig, marker: Path, pattern: str) -> Path:
    """The newest checkpoint, a payload put into its files of that pattern, and digests that fit."""
    newest = checkpoint.resolve(Path(config.out))
    files = list((newest / checkpoint.ENGINE).rglob(pattern))
    assert files
    for file in files:
        state = torch.load(file, weights_only=False)  # our own
        torch.save(state | {"payload": Payload(marker)}, file)
    note_digests(newest, 0)
    return newest


@pytest.mark.timeout(900)
@pytest.mark.parametrize("pattern", ["*optim*.pt", "*model_states.pt"])
def test_a_payload_with_digests_that_fit_never_runs_on_resume(marked: tuple[RunConfig, Path], pattern: str) -> None:
    config, marker = marked
    if config.engine.stage == "plain" and pattern != "*optim*.pt":
        pytest.skip("a plain engine has no such file")
    poisoned(config, marker, pattern)
    with pytest.raises(TrainingError, match=r"holds code \(posix\.system\), which a run never writes"):
        train(config, ALONE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("pattern", ["*optim*.pt", "*model_states.pt"])
def test_a_payload_never_runs_where_state_is_converted_to_other_ranks(
    marked: tuple[RunConfig, Path], pattern: str
) -> None:
    config, marker = marked
    if config.engine.stage == "plain":
        pytest.skip("a plain engine knows one rank")
    folder = poisoned(config, marker, pattern) / checkpoint.ENGINE
    built = build_for_training(config)
    with joined(config, ALONE):
        engine = make_engine(config, built.model, ALONE)
        with pytest.raises(TrainingError, match=r"holds code \(posix\.system\)"):
            engine.load(folder, 2)
        engine.close()


def test_libraries_cannot_load_code_and_the_users_switches_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Payload(tmp_path / "marker"), tmp_path / "file")
    with only_data(), pytest.raises(Exception, match=r"posix\.system"):
        torch.load(tmp_path / "file", weights_only=False)
    assert not (tmp_path / "marker").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1" and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
