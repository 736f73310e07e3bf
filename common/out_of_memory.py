"""Out of memory: one message that says who asked for how much memory, and what takes less."""

import contextlib
import re
from collections.abc import Iterator

from glus.common.errors import TrainingError, UserError

#: How libraries say it that have no exception of their own for it.
_SIGNS = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator", "can't allocate memory", "not enough memory")
#: What torch adds on its allocator.
_REST = re.compile(r"\s*(Process \d|Including non-PyTorch|Of the allocated|If reserved|See doc|CUDA kernel).*")


def out_of_memory(error: BaseException) -> str:
    """What was asked for, on one line; "" where `error` is something else. (torch need not be imported.)"""
    text = " ".join(str(error).split())
    named = {kind.__name__ for kind in type(error).__mro__}
    if not named & {"OutOfMemoryError", "MemoryError"} and not (
        isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)
    ):
        return ""
    reason = _REST.sub("", text).rstrip(" .") or "no memory left"
    return reason if "memory" in reason.lower() else f"out of memory: {reason}"


@contextlib.contextmanager
def memory_explained(who: str, remedy: str, kind: type[UserError] = TrainingError) -> Iterator[None]:
    """Raise `kind` where the block runs out of memory. `who` names rank and device, `remedy` what takes less."""
    try:
        yield
    except Exception as error:
        asked = out_of_memory(error)
        if not asked:
            raise
        raise kind(f"{who}: {asked}: {remedy}") from error
