"""J and F of every frame on disk: OUT/frames.parquet, one row a frame of an expression whose target is known.

Columns: dataset, split, video, expression, frame (texts), J, F (float32, 0 to 100), lost (a text: where J is lost, by
error_parts.py). Rows follow scores.csv, frames in their order. Any reader of Parquet opens it (pandas, DuckDB, polars).
The file's metadata names the format's version.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError, InputError
from glus.common.files import open_regular
from glus.evaluation.score.error_parts import PARTS
from glus.evaluation.score.expression_score import FrameScores

if TYPE_CHECKING:
    import pyarrow as pa

FRAMES = "frames.parquet"
_KEY, _VERSION = b"glus.frame_scores", b"1"
_NAMES = ("dataset", "split", "video", "expression", "frame")
_METRICS, _LOST = ("J", "F"), "lost"
#: Values of the column `lost`, in the order of their numbers.
_PLACES = ("", *PARTS)
_REMEDY = "score these predictions again"


def write_frame_scores(scores: Sequence[FrameScores], out: Path) -> Path:
    """Write OUT/frames.parquet, complete or absent; return its place. Raises InputError where it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    counts = np.array([len(each.frame_names) for each in scores], dtype=np.int64)
    row_of = np.repeat(np.arange(len(scores), dtype=np.int32), counts)
    columns: dict[str, pa.Array] = {}
    for name in _NAMES[:-1]:
        values = pa.array([getattr(each, name) for each in scores], pa.string()).dictionary_encode()
        columns[name] = values.take(pa.array(row_of))
    columns["frame"] = pa.array([name for each in scores for name in each.frame_names], pa.string())
    for name in _METRICS:
        parts = [getattr(each, name) for each in scores]
        columns[name] = pa.array(np.concatenate(parts) if parts else np.empty(0, np.float32), pa.float32())
    places = np.concatenate([np.empty(0, np.int8), *(each.lost for each in scores)])
    columns[_LOST] = pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), pa.array(_PLACES))
    table = pa.table(columns).replace_schema_metadata({_KEY: _VERSION})
    content = io.BytesIO()
    parquet.write_table(table, content, compression="zstd")
    write_atomic(out / FRAMES, content.getvalue())
    return out / FRAMES


def read_frame_scores(out: Path) -> Iterator[FrameScores]:
    """What `write_frame_scores` wrote into `out`, expression by expression, in order.

    Raises EvaluationError where the file is not there or is no such file.
    """
    table = _table(out / FRAMES)
    names = [table.column(name).to_pylist() for name in _NAMES]
    known = {name: place for place, name in enumerate(_PLACES)}
    lost = np.array([known[name] for name in table.column(_LOST).to_pylist()], np.int8)
    metrics = [table.column(name).to_numpy().astype(np.float32, copy=False) for name in _METRICS]
    keys = list(zip(*names[:-1], strict=True))
    begin = 0
    for end in range(1, len(keys) + 1):
        if end < len(keys) and keys[end] == keys[begin]:
            continue
        dataset, split, video, expression = keys[begin]
        region, boundary = (each[begin:end] for each in metrics)
        yield FrameScores(
            dataset, split, video, expression, tuple(names[-1][begin:end]), region, boundary, lost[begin:end]
        )
        begin = end


def _table(file: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with open_regular(file, "file of frames' scores") as opened:
            table = parquet.read_table(opened)
    except InputError as error:
        raise EvaluationError(f"{error}; {_REMEDY}", file=str(file)) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise EvaluationError(f"{file} cannot be read ({error}): {_REMEDY}", file=str(file)) from error
    version = (table.schema.metadata or {}).get(_KEY)
    if version != _VERSION:
        found = "no file of frames' scores" if version is None else f"of version {version.decode(errors='replace')}"
        raise EvaluationError(f"{file} is {found}, this code reads {_VERSION.decode()}: {_REMEDY}", file=str(file))
    missing = [name for name in (*_NAMES, *_METRICS, _LOST) if name not in table.column_names]
    if missing or any(table.column(name).null_count for name in (*_NAMES, *_METRICS, _LOST)):
        raise EvaluationError(f"{file} has no complete column {', '.join(missing) or 'of each kind'}: {_REMEDY}")
    unknown = set(table.column(_LOST).to_pylist()) - set(_PLACES)
    if unknown:
        raise EvaluationError(f"{file} has {min(unknown)!r} in its column {_LOST}: {_REMEDY}", file=str(file))
    return table
