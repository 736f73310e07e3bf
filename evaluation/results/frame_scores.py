"""J and F of every frame on disk: OUT/frames.parquet, one row a frame of an expression whose target is known.

Columns: dataset, split, video, expression, frame (texts), J, F (float32, 0 to 100), lost (a text: where J is lost, by
error_parts.py). Rows follow scores.csv, frames in their order. Any reader of Parquet opens it (pandas, DuckDB, polars).
The file's metadata names the format's version.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.data_pipeline.sampling.frame_table import FRAMES as FRAMES
from glus.data_pipeline.sampling.frame_table import (
    NAMES,
    VERSION,
    VERSION_KEY,
    coded,
    expression_rows,
    read_frame_table,
)
from glus.evaluation.score.error_parts import PARTS
from glus.evaluation.score.expression_score import FrameScores

_METRICS, _LOST = ("J", "F"), "lost"
#: Values of the column `lost`, in the order of their numbers.
_PLACES = ("", *PARTS)


class RowsOfFrames(Protocol):
    """Which frames of which expression some rows of a table are about."""

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def video(self) -> str: ...

    @property
    def expression(self) -> str: ...

    @property
    def frame_names(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class FrameRows:
    """`RowsOfFrames` as values."""

    dataset: str
    split: str
    video: str
    expression: str
    frame_names: tuple[str, ...]


def write_frame_scores(scores: Sequence[FrameScores], out: Path) -> Path:
    """Write OUT/frames.parquet, complete or absent; return its place. Raises InputError where it cannot be written."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name in _METRICS:
        parts = [getattr(each, name) for each in scores]
        columns[name] = np.concatenate(parts) if parts else np.empty(0, np.float32)
    places = np.concatenate([np.empty(0, np.int8), *(each.lost for each in scores)])
    columns[_LOST] = pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), pa.array(_PLACES))
    write_frame_rows(out / FRAMES, scores, columns, (VERSION_KEY, VERSION))
    return out / FRAMES


def write_frame_rows(
    file: Path, rows: Sequence[RowsOfFrames], values: Mapping[str, Any], version: tuple[bytes, bytes]
) -> None:
    """Write a Parquet file of one row a frame: the columns NAMES, then `values` (NumPy's or pyarrow's arrays).

    `version` is the key and value of the file's metadata. The file is complete or absent; raises InputError where it
    cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    counts = np.array([len(each.frame_names) for each in rows], dtype=np.int64)
    row_of = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
    columns: dict[str, pa.Array] = {}
    for name in NAMES[:-1]:
        texts = pa.array([getattr(each, name) for each in rows], pa.string()).dictionary_encode()
        columns[name] = texts.take(pa.array(row_of))
    columns["frame"] = pa.array([name for each in rows for name in each.frame_names], pa.string())
    columns |= {name: pa.array(column) for name, column in values.items()}
    content = io.BytesIO()
    table = pa.table(columns).replace_schema_metadata(dict([version]))
    parquet.write_table(table, content, compression="zstd")
    write_atomic(file, content.getvalue())


def read_frame_scores(out: Path) -> Iterator[FrameScores]:
    """What `write_frame_scores` wrote into `out`, expression by expression, in order.

    Raises EvaluationError where the file is not there or is no such file.
    """
    file = out / FRAMES
    table = read_frame_table(file, (*NAMES, *_METRICS, _LOST), EvaluationError)
    places, texts = coded(table.column(_LOST))
    used = np.unique(places)
    unknown = {texts[place] for place in used} - set(_PLACES)
    if unknown:
        raise EvaluationError(
            f"{file} has {min(unknown)!r} in its column {_LOST}: score these predictions again", file=str(file)
        )
    number_of = np.zeros(len(texts), np.int8)
    number_of[used] = [_PLACES.index(texts[place]) for place in used]
    lost = number_of[places]
    metrics = [table.column(name).to_numpy().astype(np.float32, copy=False) for name in _METRICS]
    frames = table.column("frame").to_pylist()
    for (dataset, split, video, expression), begin, end in expression_rows(
        [coded(table.column(name)) for name in NAMES[:-1]]
    ):
        region, boundary = (each[begin:end] for each in metrics)
        yield FrameScores(
            dataset, split, video, expression, tuple(frames[begin:end]), region, boundary, lost[begin:end]
        )
