"""An index.arrow with wrong bytes is refused or read; it never ends the process and never gives an impossible place."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from glus.common.errors import UserError
from glus.data_pipeline.shards.index_table import SCHEMA, IndexTable, table_bytes

pytestmark = pytest.mark.slow

SHARDS = ("shard-00000.tar", "shard-00001.tar")
MUTANTS = 1500


def rows(count: int = 6) -> list[dict[str, object]]:
    return [
        {
            "video": f"video{number}",
            "key": f"key{number}",
            "height": 48,
            "width": 64,
            "frame_names": ["00000", "00001"],
            "object_ids": ["1", "2"],
            "expressions": [
                {"id": "0", "text": "the red dog", "objects": [0, 1], "kind": "look", "type_id": None},
                {"id": "1", "text": "nothing", "objects": [], "kind": "", "type_id": 2},
            ],
            "shard": number // 3,
            "offset": 512 + 10_240 * (number % 3),
            "sizes": [10, 20, 30, 40],
            "masks_crc": number,
        }
        for number in range(count)
    ]


def content(changed: dict[str, object] | None = None) -> bytes:
    """The bytes of an index, some values of its first video changed."""
    given = rows()
    given[0] |= changed or {}
    return table_bytes(pa.Table.from_pylist(given, SCHEMA))


def read_all(source: bytes) -> None:
    """Everything that is ever asked of an index."""
    table = IndexTable.open(source, "dataset", "split", SHARDS)
    for number in range(len(table)):
        entry = table[number]
        shard, spans = table.spans(number)
        assert shard in SHARDS and len(spans) == len(entry.frame_names) + 2 and min(min(span) for span in spans) >= 0
        table.masks_crc(number)
    table.frame_counts(), table.target_counts(), [each.text for entry in table for each in entry.expressions]
    for shard in SHARDS:
        table.videos_of(shard)


def mutate(first: int, last: int) -> None:
    """Read so many indexes, each with a few bytes overwritten."""
    whole = content()
    for seed in range(first, last):
        random = np.random.default_rng(seed)
        changed = bytearray(whole)
        for _ in range(int(random.integers(1, 4))):
            place = int(random.integers(len(changed)))
            value = random.choice([0x00, 0x7F, 0x80, 0xFF, int(random.integers(256))])
            changed[place : place + int(random.integers(1, 5))] = bytes([int(value)])
        with contextlib.suppress(ValueError, OSError):
            read_all(bytes(changed[: len(whole)]))


@pytest.mark.timeout(300)
def test_no_wrong_bytes_end_the_process() -> None:
    """In a process of its own, which a bad offset would end by a signal."""
    program = f"from tests.data_pipeline.test_index_damage import mutate; mutate(0, {MUTANTS})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shard": 2}, "a shard that is not there"),
        ({"shard": -1}, "a shard that is not there"),
        ({"offset": -512}, "a place that no shard has"),
        ({"offset": 2**62}, "a place that no shard has"),
        ({"sizes": [10, 20, 30]}, "another number of members"),
        ({"height": 0}, "a video's height is none"),
        (
            {"expressions": [{"id": "0", "text": "a", "objects": [2], "kind": "", "type_id": None}]},
            "an object that its video does not have",
        ),
        (
            {"expressions": [{"id": "0", "text": "a", "objects": [-1], "kind": "", "type_id": None}]},
            "an object that its video does not have",
        ),
    ],
)
def test_numbers_that_point_outside_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IndexTable.open(content(changed), "dataset", "split", SHARDS)


def test_an_intact_index_is_read() -> None:
    read_all(content())
    assert len(IndexTable.open(table_bytes(SCHEMA.empty_table()), "dataset", "split", SHARDS)) == 0


@pytest.mark.timeout(20)
def test_an_index_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "index.arrow")
    with pytest.raises(UserError, match="a named pipe instead of a regular file: name the index itself"):
        IndexTable.open(tmp_path / "index.arrow", "dataset", "split", SHARDS)
