"""The file in which a rank records the error that ended it, for its launcher: that of `glus train`, or torchrun."""

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from glus.common.atomic import atomic_open
from glus.common.errors import InputError
from glus.common.terminal import plain

#: Names the file. torch elastic sets it.
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
#: The watchdog's thread and the main one may both record, and both would write the same temporary file.
_LOCK = threading.Lock()


def record_error(error: BaseException) -> None:
    """Write an error and its traceback to the file that ERROR_FILE names, in the format of torch's ErrorHandler.

    The file is complete or absent. torch's handler truncates it first, and the launcher ends with a JSONDecodeError
    where the rank is interrupted or killed before the rest is written. Without ERROR_FILE nothing is written; where
    the file cannot be written, the traceback is printed.
    """
    place = os.environ.get(ERROR_FILE)
    if not place:
        return
    callstack = plain("".join(traceback.format_exception(error)))
    details = {"py_callstack": callstack, "timestamp": str(int(time.time()))}
    message = {"message": plain(f"{type(error).__name__}: {error}"), "extraInfo": details}
    try:
        with _LOCK, atomic_open(Path(place), durable=False) as file:
            file.write(json.dumps({"message": message}).encode())
    except InputError as fault:
        print(plain(f"{fault}\n{callstack}"), file=sys.stderr)
