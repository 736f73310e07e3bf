"""Progress bars of other libraries (transformers, DeepSpeed, torch): hidden where stderr is no terminal."""

import os
import sys
from typing import Any

#: tqdm reads it when it is imported. Our own bars (progress.py) know the value and are shown.
VARIABLE, OTHERS = "TQDM_DISABLE", "others"


def quiet_other_bars() -> None:
    """Hide them in this process and its children, unless stderr is a terminal. Called before tqdm is imported."""
    if not is_terminal(sys.stderr):
        os.environ.setdefault(VARIABLE, OTHERS)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; not where there is none or it is closed."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
