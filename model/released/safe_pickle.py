"""Pickles as data: torch.load makes tensors and a few named classes, and never runs what a file names."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch

#: torch's own switches; the first makes every torch.load refuse code, also one that says weights_only=False.
_FORCED, _FORBIDDEN = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def only_data(classes: Sequence[type] = ()) -> Iterator[None]:
    """Within it every torch.load of this process, a library's too, takes tensors, plain containers and `classes`.

    Anything else raises UnpicklingError before it is called.
    """
    former = {name: os.environ.pop(name, None) for name in (_FORCED, _FORBIDDEN)}
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals(list(classes)):
            yield
    finally:
        del os.environ[_FORCED]
        os.environ.update({name: value for name, value in former.items() if value is not None})


def refused_code(error: BaseException) -> str | None:
    """Return what a pickle with code would call (" (posix.system)", "" where torch names nothing); None otherwise."""
    message = str(error)
    if not isinstance(error, UnpicklingError) or not ("Weights only load" in message or "weights_only" in message):
        return None
    _, found, rest = message.partition("GLOBAL ")
    return f" ({rest.split()[0]})" if found and rest.split() else ""


def holds_code(place: Path, code: str) -> str:
    """The message for state of an optimiser that would run `code` (" (posix.system)") where it is unpickled."""
    return (
        f"{place} holds code{code}, which a run never writes; it was not run: restore the checkpoint from where you "
        "trust it, or name another in checkpoints/latest"
    )
