"""Large libraries are imported in less time without garbage collections."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Collect no garbage in the block, which imports large libraries.

    What they define stays, and collections look at it again and again: a quarter of the seconds that torch,
    transformers, DeepSpeed and MLflow take (docs/log.md).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
