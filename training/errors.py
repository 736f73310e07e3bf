"""The one exception of training that the user can fix."""

from pathlib import Path

from glus.common.errors import UserError


class TrainingError(UserError):
    """A run that cannot start or go on. The message says what, where (run, checkpoint, setting) and what to do."""


def holds_code(place: Path, code: str) -> str:
    """The message for state of an optimiser that would run `code` (" (posix.system)") where it is unpickled."""
    return (
        f"{place} holds code{code}, which a run never writes; it was not run: restore the checkpoint from where you "
        "trust it, or name another in checkpoints/latest"
    )
