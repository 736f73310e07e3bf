"""`refs(*).p` of the refCOCO family: a pickle from outside, of which plain data is read and nothing is run.

Python's own `pickle.load` imports and calls whatever a file names. Here the operations that build lists, dicts, texts
and numbers are known, and no other: an operation that would look up a class, or call anything, ends the reading.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from glus.common.errors import DataError, InputError
from glus.common.files import read_regular
from glus.data_pipeline.raw.annotation_file import REMEDY

#: Bytes of such a file at most: the largest released one has 60 MB.
LARGEST = 2**30
_PLAIN = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_LIST LIST "
    "APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GET BINGET LONG_BINGET PUT "
    "BINPUT LONG_BINPUT MEMOIZE"
)
#: Operations that put values under keys, and where the first key lies on the stack.
_KEYED = {"SETITEM": -2, "SETITEMS": 0, "DICT": 0}


class _Refused(Exception):
    """What the file wants and does not get."""


class _PlainUnpickler(pickle._Unpickler):
    """In Python: the one in C takes 64 GB where a file names a large place in its memo."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"it names the class {module[:40]}.{name[:40]}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("it names an object outside of the file")


def _code(name: str) -> int:
    return int(getattr(pickle, name)[0])


def _refuse(unpickler: Any) -> NoReturn:
    raise _Refused("it wants to build or call something")


def _keyed(operation: Callable[[Any], None], first: int) -> Callable[[Any], None]:
    """The operation, after a look at the keys: to hash a tuple of tuples a million deep ends the process."""

    def check(unpickler: Any) -> None:
        if any(type(key) not in (str, int) for key in unpickler.stack[first::2]):
            raise _Refused("it has a key that is neither a text nor an integer")
        operation(unpickler)

    return check


_known = pickle._Unpickler.dispatch
# GLOBAL and STACK_GLOBAL stay as they are: they end in find_class, which has the class's name for the message.
_allowed = {_code(name) for name in (*_PLAIN.split(), "GLOBAL", "STACK_GLOBAL")}
_PlainUnpickler.dispatch = {
    **{operation: function if operation in _allowed else _refuse for operation, function in _known.items()},
    **{_code(name): _keyed(_known[_code(name)], first) for name, first in _KEYED.items()},
}


def read_plain_pickle(path: Path) -> Any:
    """Return what the file holds: lists, dicts, tuples, texts (8-bit ones as latin1), bytes and numbers.

    Raises DataError where it is missing, too large or damaged, and where it names a class: then nothing was run.
    """
    try:
        content = read_regular(path, "annotation file", LARGEST)
    except InputError as error:
        raise DataError(str(error), file=str(path)) from error
    try:
        return _PlainUnpickler(content).load()
    except _Refused as error:
        raise DataError(
            f"{path}: not plain data, so nothing of it was run ({error}); {REMEDY}", file=str(path)
        ) from error
    except MemoryError as error:
        raise DataError(f"{path}: too large for the memory of this machine; {REMEDY}", file=str(path)) from error
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise DataError(f"{path}: a damaged pickle ({reason}); {REMEDY}", file=str(path)) from error
