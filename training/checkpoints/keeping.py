"""Which checkpoints of a run stay: the newest ones, the best ones, and one every so many hours."""

from pathlib import Path

from glus.common.errors import TrainingError
from glus.training.checkpoints.base_weights import remove_unneeded
from glus.training.checkpoints.checkpoint import RunState, find_latest, read_state, remove, step_of
from glus.training.run_config import KeepConfig


def steps_to_keep(states: list[RunState], keep: KeepConfig) -> set[int]:
    """Steps of the checkpoints that stay."""
    ordered = sorted(states, key=lambda state: state.step)
    if keep.last == 0:
        return {state.step for state in ordered}
    kept = {state.step for state in ordered[-keep.last :]}
    measured = sorted((state.loss, state.step) for state in ordered if state.loss is not None)
    kept |= {step for _, step in measured[: keep.best]}
    if keep.every_hours:
        since = None
        for state in ordered:
            if since is None or state.written - since >= 3600 * keep.every_hours:
                since = state.written
                kept.add(state.step)
    return kept


def remove_others(folder: Path, keep: KeepConfig) -> list[str]:
    """Remove the checkpoints in `folder` that the policy does not keep; returns their names.

    A damaged one is removed too, once `keep.last` newer ones are there. Then bases that no checkpoint names go.
    """
    newest = find_latest(folder)
    found: dict[Path, RunState | None] = {}
    for path in sorted(folder.glob("step-*")):
        try:
            found[path] = read_state(path)
        except TrainingError:
            found[path] = None  # a warning was printed when it was skipped
    states = [state for state in found.values() if state]
    kept = steps_to_keep(states, keep)
    oldest = min((state.step for state in states if state.step in kept), default=0)
    removed = []
    for path, state in found.items():
        stays = state.step in kept if state else step_of(path) >= oldest or keep.last == 0
        if path == newest or stays:
            continue
        remove(path)
        removed.append(path.name)
    remove_unneeded(folder)
    return removed
