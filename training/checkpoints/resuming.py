"""Choose the checkpoint that a run resumes from: the newest intact one. Damaged ones are skipped with a warning."""

import sys
from pathlib import Path

from glus.common.errors import InputError, TrainingError
from glus.common.files import is_there
from glus.common.terminal import one_line
from glus.training.checkpoints.checkpoint import RUN, find_latest, name_of, newest_first, read_state, step_of
from glus.training.checkpoints.integrity import find_corruption
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig

#: A rank's answer for a checkpoint that it may not read; 1 is damaged, 0 intact.
_FORBIDDEN = 2


def choose_checkpoint(folder: Path, rank: Rank) -> Path | None:
    """Return the newest intact checkpoint, the same on every rank; None where none was written. All ranks call it.

    Each rank checks its share of the files. Raises TrainingError where there are some and none is intact, or where
    `latest` names one that is gone and no other is there.
    """
    # Rank 0's list: another machine may see a shared folder a little later.
    waiting = [path for path in newest_first(folder) if rank.rank == 0]
    if rank.rank == 0 and not waiting:
        find_latest(folder)
    skipped: list[str] = []
    while True:
        [step] = rank.all_reduce_max([step_of(waiting.pop(0)) if waiting else -1])
        if step < 0:
            break
        path = folder / name_of(step)
        try:
            why, forbidden = find_corruption(path, rank.rank, rank.ranks), ""
        except InputError as error:
            why = forbidden = str(error)
        [worst] = rank.all_reduce_max([_FORBIDDEN if forbidden else bool(why)])
        if worst == _FORBIDDEN:
            # Not skipped: it may be intact, and training would replace it.
            raise TrainingError(forbidden or f"{path} cannot be read by another rank: see its message")
        if worst == 0:
            if skipped and rank.rank == 0:
                print(f"WARNING: going on from {path.name} instead: the steps since then are trained again", flush=True)
            return path
        skipped.append(why or f"{path} is damaged, as another rank reports")
        if why:
            print(one_line(f"WARNING: {path.name} cannot be used: {why}"), file=sys.stderr, flush=True)
    if skipped:
        raise TrainingError(
            f"no intact checkpoint in {folder}: {skipped[0]}"
            + (f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else "")
            + "; restore one, or train into another `out`"
        )
    return None


def check_resumable(path: Path, config: RunConfig, fingerprint: str, rank: Rank) -> None:
    """Raise TrainingError where a run cannot resume from a checkpoint: other data (`fingerprint` is now's) or seed.

    On another number of ranks the batches stay the same; rank 0 warns where the loss would differ.
    """
    state = read_state(path)
    if state.data_fingerprint != fingerprint:
        raise TrainingError(
            f"{config.out} was trained on other shards or labels ({state.data_fingerprint}, now {fingerprint}): "
            "restore them, or train into another `out`"
        )
    if state.seed != config.seed:
        raise TrainingError(
            f"{config.out} was begun with seed {state.seed}, now seed {config.seed}: use the same, or train into "
            "another `out`"
        )
    pooled = config.model.loss.contrastive > 0 and config.engine.contrast_together == 0
    if state.ranks != rank.ranks and rank.rank == 0:
        print(f"going on with {rank.ranks} ranks instead of {state.ranks}", flush=True)
        if pooled:
            print(
                "WARNING: the contrastive loss compares one micro-batch of each rank (engine.contrast_together=0), so "
                "that the loss depends on their number; with engine.contrast_together=1 it does not",
                flush=True,
            )


def is_done(folder: Path, steps: int) -> bool:
    """Return whether the newest checkpoint already holds `steps` steps."""
    newest = next(iter(newest_first(folder)), None)
    return newest is not None and is_there(newest / RUN) and step_of(newest) >= steps
