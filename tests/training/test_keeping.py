"""Which checkpoints stay: the newest, the best, one every so many hours; what is broken goes in its turn."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from glus.common.errors import TrainingError
from glus.training.checkpoints.checkpoint import RunState, name_of
from glus.training.checkpoints.keeping import remove_others, steps_to_keep
from glus.training.run_config import KeepConfig


def state(step: int, loss: float | None = None, hour: float = 0.0) -> RunState:
    return RunState(step, 0, "data", "", "", 1, loss=loss, written=3600 * hour)


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (KeepConfig(last=2), {50, 60}),
        (KeepConfig(last=0), {10, 20, 30, 40, 50, 60}),
        (KeepConfig(last=1, best=2), {20, 40, 60}),
        (KeepConfig(last=1, every_hours=2), {10, 30, 50, 60}),
        (KeepConfig(last=1, every_hours=24, best=1), {10, 40, 60}),
    ],
)
def test_the_policy_says_which_steps_stay(keep: KeepConfig, stay: set[int]) -> None:
    losses = {10: None, 20: 0.5, 30: 0.9, 40: 0.1, 50: 0.7, 60: 0.8}
    states = [state(step, loss, hour=step / 10) for step, loss in losses.items()]
    assert steps_to_keep(states, keep) == stay


def test_what_is_let_go_is_removed_and_the_newest_never(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        (tmp_path / name_of(step)).mkdir()
        (tmp_path / name_of(step) / "run.json").write_text(json.dumps(asdict(state(step))), encoding="utf-8")
    (tmp_path / name_of(1) / "run.json").write_text("{", encoding="utf-8")  # broken, and older than what stays
    (tmp_path / name_of(4) / "run.json").write_text("{", encoding="utf-8")  # broken, and newer
    (tmp_path / "latest").write_text(name_of(2), encoding="utf-8")
    assert remove_others(tmp_path, KeepConfig(last=1)) == [name_of(1)]
    (tmp_path / "latest").write_text(name_of(3), encoding="utf-8")
    assert remove_others(tmp_path, KeepConfig(last=1)) == [name_of(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", name_of(3), name_of(4)]


def test_a_policy_below_nothing_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"keep\.best=-1: it must be at least 0"):
        KeepConfig(best=-1)
