"""index.arrow: where every member of every video lies, and all metadata, as columns that need not be read to be used.

A local file is mapped, not loaded: opening ten million expressions takes no memory for them (benchmarks/data_plan.py).
Members of a video follow each other in the tar, a header of 512 bytes before each and filled up to 512, so one offset
and the sizes give the places of all.
"""

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glus.common.files import open_regular
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.index import IndexedVideo, Span, VideoEntry

#: Pixels: no JPEG is longer or wider.
LONGEST_SIDE = 65_535
#: What no component of a path holds (common/names.py), and what no path of several holds.
_NO_NAME = r"^$|^\.|[/\\\x00-\x1f\x7f]"
_NO_PATH = r"^$|^/|/$|//|(^|/)\.|[\\\x00-\x1f\x7f]"
#: How a file of Arrow's begins and ends.
MAGIC = b"ARROW1"
#: Header and filling of a tar member.
TAR_BLOCK = 512
#: Bytes of a shard at most: far above what is written, and below what sums of sizes could overflow.
LARGEST_OFFSET = 2**60
#: Videos whose entries are kept as objects once they were asked for.
KEPT_ENTRIES = 4096
#: Videos whose places in the shard are kept: masks are read first, and frames soon after them.
KEPT_SPANS = 256

_EXPRESSION = pa.struct(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        # places in the video's object_ids
        pa.field("objects", pa.list_(pa.field("item", pa.int32(), nullable=False)), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("type_id", pa.int32()),
    ]
)


def _list_of(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", item, nullable=False))


SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("video", pa.string()),
            ("key", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("frame_names", _list_of(pa.string())),
            ("object_ids", _list_of(pa.string())),
            ("expressions", _list_of(_EXPRESSION)),
            ("shard", pa.int32()),
            # of the first member's content; then the sizes of metadata, masks and each frame
            ("offset", pa.int64()),
            ("sizes", _list_of(pa.uint32())),
            ("masks_crc", pa.uint32()),
        )
    ]
)


class IndexBuilder:
    """Collects a split's videos, shard by shard, as columns: objects of one shard at a time."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []

    def add(self, shard: int, videos: Sequence[IndexedVideo]) -> None:
        """The videos of shard number `shard` (its place in the manifest's list), in their order in the tar."""
        rows = [_row(shard, video) for video in videos]
        columns = [pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA]
        self._batches.append(pa.record_batch(columns, schema=SCHEMA))

    def to_bytes(self) -> bytes:
        """The content of index.arrow: one record batch; the same videos give the same bytes."""
        table = pa.Table.from_batches(self._batches, SCHEMA).combine_chunks()
        return table_bytes(table)


def table_bytes(table: pa.Table) -> bytes:
    """A table of SCHEMA in Arrow's file form."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(table, max_chunksize=max(len(table), 1))
    return sink.getvalue().to_pybytes()


def _row(shard: int, video: IndexedVideo) -> dict[str, Any]:
    entry = video.entry
    place = {object_id: number for number, object_id in enumerate(entry.object_ids)}
    spans = (video.metadata, video.masks, *video.frames)
    sizes = [size for _, size in spans]
    if spans_from(spans[0][0], sizes) != list(spans):
        raise ValueError(f"the members of {video.key} do not follow each other in {video.shard}")
    return {
        "video": entry.video,
        "key": video.key,
        "height": entry.height,
        "width": entry.width,
        "frame_names": entry.frame_names,
        "object_ids": entry.object_ids,
        "expressions": [
            {
                "id": each.id,
                "text": each.text,
                "objects": [place[object_id] for object_id in each.object_ids],
                "kind": each.kind,
                "type_id": each.type_id,
            }
            for each in entry.expressions
        ],
        "shard": shard,
        "offset": spans[0][0],
        "sizes": sizes,
        "masks_crc": video.masks_crc,
    }


def spans_from(offset: int, sizes: Iterable[int]) -> list[Span]:
    """(offset, size) of members that follow each other in a tar, the first one's content at `offset`."""
    spans = []
    for size in sizes:
        spans.append((offset, size))
        offset += -(-size // TAR_BLOCK) * TAR_BLOCK + TAR_BLOCK
    return spans


def check_ends(path: Path) -> None:
    """Look at both ends of a local file, before all of it is digested: a hole of terabytes would take hours.

    Raises ValueError where it is no file of Arrow's, FileNotFoundError, and InputError as `open_regular`.
    """
    path.stat()  # that it is missing is for the caller
    with open_regular(path, "index") as file:
        begin = file.read(len(MAGIC))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(MAGIC)))
        if begin != MAGIC or file.read() != MAGIC:
            raise ValueError("it does not begin and end as a file of Arrow's does")


def check_table(table: pa.Table, shards: int) -> None:
    """Raise ValueError where a table is no index of so many shards.

    Arrow reads offsets unchecked: those of a damaged file lead out of its memory. A name leads out of a folder.
    """
    if not table.schema.equals(SCHEMA):
        raise ValueError("its columns are not those of an index")
    table.validate(full=True)
    if not len(table):
        return
    batch = table.combine_chunks().to_batches()[0]
    columns = {field.name: batch.column(field.name) for field in SCHEMA}
    names, ids, sizes, expressions = (columns[name] for name in ("frame_names", "object_ids", "sizes", "expressions"))
    each = {field.name: expressions.values.field(field.name) for field in _EXPRESSION}
    inner = [names.values, ids.values, sizes.values, expressions.values, each["objects"].values]
    inner += [part for name, part in each.items() if name != "type_id"]
    if any(part.null_count for part in (*columns.values(), *inner)):
        raise ValueError("a value is missing")
    counts = {name: np.diff(columns[name].offsets.to_numpy()) for name in ("frame_names", "object_ids", "sizes")}
    if (counts["sizes"] != counts["frame_names"] + 2).any() or (counts["frame_names"] < 1).any():
        raise ValueError("a video has another number of members than of frames")
    numbers = columns["shard"].to_numpy()
    if numbers[0] < 0 or numbers[-1] >= shards or (np.diff(numbers) < 0).any():
        raise ValueError("a video lies in a shard that is not there")
    if not TAR_BLOCK <= columns["offset"].to_numpy().min() <= columns["offset"].to_numpy().max() <= LARGEST_OFFSET:
        raise ValueError("a video lies at a place that no shard has")
    for side in ("height", "width"):
        if not 1 <= columns[side].to_numpy().min() <= columns[side].to_numpy().max() <= LONGEST_SIDE:
            raise ValueError(f"a video's {side} is none")
    _check_places(each["objects"], expressions, counts["object_ids"])
    for part, what in ((columns["video"], "video"), (names.values, "frame"), (each["id"], "expression")):
        if pc.any(pc.match_substring_regex(part, _NO_PATH if what == "video" else _NO_NAME)).as_py():
            raise ValueError(f"a name of a {what} is no name of a file")


def _check_places(objects: pa.Array, expressions: pa.Array, counts: NDArray[np.int32]) -> None:
    """The object places of every expression are below the number of its video's objects."""
    places, bounds = objects.values.to_numpy(), objects.offsets.to_numpy()
    of_expression = np.repeat(counts, np.diff(expressions.offsets.to_numpy()))
    most = np.repeat(of_expression, np.diff(bounds)) if len(of_expression) == len(objects) else np.zeros(0)
    if len(most) != len(places) or (places < 0).any() or (places >= most).any():
        raise ValueError("an expression names an object that its video does not have")


class IndexTable(Sequence[VideoEntry]):
    """A split's videos: a VideoEntry by number, and columns over all of them."""

    def __init__(self, table: pa.Table, dataset: str, split: str, shards: Sequence[str]) -> None:
        """`shards` are the tars' names, in the manifest's order; `open` has checked the table."""
        self._batch = table.combine_chunks().to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], SCHEMA)
        self.dataset, self.split, self._shards = dataset, split, tuple(shards)
        sizes = self._batch.column("sizes")
        # Views of the columns that are asked for with every sample: a tenth of the time that Arrow's scalars take.
        self._size_bounds, self._sizes = sizes.offsets.to_numpy(), sizes.values.to_numpy()
        self._offsets, self._shard_numbers = (self._batch.column(name).to_numpy() for name in ("offset", "shard"))
        self._heights, self._widths = (self._batch.column(name).to_numpy() for name in ("height", "width"))
        # Not a decorator: that would keep every index alive that ever was.
        self._entry = lru_cache(KEPT_ENTRIES)(self._read_entry)
        self._spans = lru_cache(KEPT_SPANS)(self._read_spans)

    @classmethod
    def open(cls, source: Path | bytes, dataset: str, split: str, shards: Sequence[str]) -> "IndexTable":
        """From a local file, which is mapped, or from its bytes. Raises ValueError or OSError where it is damaged."""
        if isinstance(source, Path):
            open_regular(source, "index").close()  # a pipe would be waited for
        try:
            stream = pa.memory_map(str(source)) if isinstance(source, Path) else pa.BufferReader(source)
            table = pa.ipc.open_file(stream).read_all()
            check_table(table, len(shards))
            return cls(table, dataset, split, shards)
        except (pa.ArrowException, MemoryError, LookupError, OverflowError) as error:
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __getitem__(self, video: Any) -> Any:
        if isinstance(video, slice):
            return [self._entry(number) for number in range(*video.indices(len(self)))]
        number = video + len(self) if video < 0 else video
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} videos, no number {video}")
        return self._entry(int(number))

    def _read_entry(self, video: int) -> VideoEntry:
        row = self._row(video, "video", "height", "width", "frame_names", "object_ids", "expressions")
        ids = row["object_ids"]
        return VideoEntry(
            dataset=self.dataset,
            split=self.split,
            video=row["video"],
            height=row["height"],
            width=row["width"],
            frame_names=tuple(row["frame_names"]),
            expressions=tuple(
                Expression(
                    each["id"],
                    each["text"],
                    tuple(ids[place] for place in each["objects"]),
                    each["kind"],
                    each["type_id"],
                )
                for each in row["expressions"]
            ),
            object_ids=tuple(ids),
        )

    def size(self, video: int) -> tuple[int, int]:
        """(height, width) of a video's frames; a hundredth of the time that its entry takes."""
        return int(self._heights[video]), int(self._widths[video])

    def spans(self, video: int) -> tuple[str, tuple[Span, ...]]:
        """The shard's name, and where metadata, masks and each frame of a video lie in it."""
        return self._spans(video)

    def _row(self, video: int, *names: str) -> dict[str, Any]:
        return {name: self._batch.column(name)[video].as_py() for name in names}

    def _read_spans(self, video: int) -> tuple[str, tuple[Span, ...]]:
        sizes = self._sizes[self._size_bounds[video] : self._size_bounds[video + 1]].astype(np.int64)
        ends = np.cumsum(-(-sizes // TAR_BLOCK) * TAR_BLOCK + TAR_BLOCK)
        starts = int(self._offsets[video]) + np.concatenate(([0], ends[:-1]))
        return self._shards[self._shard_numbers[video]], tuple(zip(starts.tolist(), sizes.tolist(), strict=True))

    def check_within(self, sizes: Sequence[int]) -> None:
        """Raise ValueError where a video's members do not lie within its shard; `sizes` are those of the shards."""
        blocks = -(-self._sizes.astype(np.int64) // TAR_BLOCK) * TAR_BLOCK + TAR_BLOCK
        ends = np.concatenate(([0], np.cumsum(blocks)))[self._size_bounds]
        # The last member's filling is there, and no header follows it.
        behind = self._offsets + np.diff(ends) - TAR_BLOCK
        if len(self) and (behind > np.asarray(sizes, dtype=np.int64)[self._shard_numbers]).any():
            raise ValueError("a video lies behind the end of its shard")

    def masks_crc(self, video: int) -> int:
        """CRC-32 of a video's masks as they were written."""
        return int(self._batch.column("masks_crc")[video].as_py())

    def videos_of(self, shard: str) -> range:
        """The videos of a shard: they follow each other."""
        column, number = self._shard_numbers, self._shards.index(shard)
        return range(int(np.searchsorted(column, number)), int(np.searchsorted(column, number, side="right")))

    def frame_counts(self) -> NDArray[np.int64]:
        """int64 [V]: frames of each video."""
        return np.asarray(np.diff(self._batch.column("frame_names").offsets.to_numpy()), dtype=np.int64)

    def target_counts(self, kinds: Sequence[str] = ()) -> NDArray[np.int64]:
        """int64 [V]: expressions of each video whose objects are known, of some kinds alone where any are given."""
        lists = self._batch.column("expressions")
        bounds = lists.offsets.to_numpy()
        counted = np.diff(lists.values.field("objects").offsets.to_numpy()) > 0
        if kinds:
            of_kind = pc.is_in(lists.values.field("kind"), value_set=pa.array(kinds))
            counted &= of_kind.to_numpy(zero_copy_only=False)
        known = np.concatenate(([0], np.cumsum(counted)))
        return np.asarray(known[bounds[1:]] - known[bounds[:-1]], dtype=np.int64)
