"""The file of frames' scores, frames.parquet, as a table: its name, columns, version, and reading with checks.

`glus score` writes it (evaluation/results/frame_scores.py); the key frame selector learns from it (frame_labels.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import InputError, UserError
from glus.common.files import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

FRAMES = "frames.parquet"
VERSION_KEY, VERSION = b"glus.frame_scores", b"1"
#: Columns of text that say which frame a row is.
NAMES = ("dataset", "split", "video", "expression", "frame")
_REMEDY = "score these predictions again"


def read_frame_table(file: Path, columns: Sequence[str], raises: type[UserError]) -> "pa.Table":
    """The given columns of a file of frames' scores, those in NAMES as dictionaries. Raises `raises`.

    It does so where the file is absent, damaged, of another version, or has no such column without gaps.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with open_regular(file, "file of frames' scores") as opened:
            schema = parquet.read_schema(opened)
            version = (schema.metadata or {}).get(VERSION_KEY)
            if version != VERSION:
                other = "no file of frames' scores" if version is None else f"of version {version!r:.40}"
                raise raises(f"{file} is {other}, this code reads {VERSION.decode()}: {_REMEDY}", file=str(file))
            missing = [name for name in columns if name not in schema.names]
            opened.seek(0)
            table = None if missing else parquet.read_table(opened, columns=list(columns), read_dictionary=list(NAMES))
    except InputError as error:
        raise raises(f"{error}; {_REMEDY}", file=str(file)) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise raises(f"{file} cannot be read ({error}): {_REMEDY}", file=str(file)) from error
    if table is None or any(table.column(name).null_count for name in columns):
        raise raises(f"{file} has no complete column {', '.join(missing) or 'of each kind'}: {_REMEDY}", file=str(file))
    return table.unify_dictionaries()


def coded(column: Any) -> tuple[NDArray[np.int32], list[str]]:
    """Numbers int32 [N] of a column of texts, and the texts that they number."""
    values = column.combine_chunks() if len(column) else column.chunk(0) if column.num_chunks else None
    if values is None:
        return np.empty(0, np.int32), []
    if not hasattr(values, "dictionary"):
        values = values.dictionary_encode()
    return values.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), values.dictionary.to_pylist()


def expression_rows(
    columns: Sequence[tuple[NDArray[np.int32], list[str]]],
) -> list[tuple[tuple[str, str, str, str], int, int]]:
    """Each expression's dataset, split, video and id, and where its rows begin and end, in their order.

    `columns` are the first four of NAMES, as `coded` gives them. Rows of an expression follow each other.
    """
    rows = len(columns[0][0])
    if not rows:
        return []
    changed = np.zeros(rows - 1, bool)
    for numbers, _ in columns:
        changed |= numbers[1:] != numbers[:-1]
    begins = np.concatenate(([0], np.flatnonzero(changed) + 1))
    datasets, splits, videos, ids = ([texts[number] for number in numbers[begins]] for numbers, texts in columns)
    ends = [*begins[1:].tolist(), rows]
    return list(zip(zip(datasets, splits, videos, ids, strict=True), begins.tolist(), ends, strict=True))
