"""An index that the manifest vouches for and that is wrong: refused when opened, before Arrow follows its offsets."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from glus.common.errors import DataError
from glus.data_pipeline.shards.index_table import SCHEMA
from glus.data_pipeline.shards.reader import ShardedSplit

Rows = list[dict[str, Any]]


@pytest.fixture
def folder(tiny_demo: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_demo / "shards" / "mevis" / "train", tmp_path / "train")
    return tmp_path / "train"


def put(folder: Path, content: bytes) -> None:
    """Make `content` the index, and the manifest vouch for it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["index_sha256"] = hashlib.sha256(content).hexdigest()
    for name, text in (("manifest.json", json.dumps(manifest).encode()), ("index.arrow", content)):
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(text)


def as_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read(folder: Path) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader((folder / "index.arrow").read_bytes())).read_all()


def set_to(name: str, value: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update({name: value})


def set_in_expression(name: str, value: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[0]["expressions"][0].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("video", "../../x"), "a name of a video"),
        (set_to("video", "/etc/x"), "a name of a video"),
        (set_to("video", "a/"), "a name of a video"),
        (set_to("video", ""), "a name of a video"),
        (set_to("video", "a\x1b[2J"), "a name of a video"),
        (set_in_expression("id", "1/2"), "a name of a expression"),
        (set_in_expression("id", ".."), "a name of a expression"),
        (lambda rows: rows[0]["frame_names"].__setitem__(0, "a/b"), "a name of a frame"),
        (set_in_expression("objects", [99]), "an object that its video does not have"),
        (set_in_expression("objects", [-1]), "an object that its video does not have"),
        (set_to("shard", 7), "a shard that is not there"),
        (set_to("shard", -1), "a shard that is not there"),
        (set_to("offset", -512), "a place that no shard has"),
        (set_to("offset", 2**40), "behind the end"),
        (lambda rows: rows[0]["sizes"].__setitem__(1, 2**32 - 1), "behind the end"),
        (lambda rows: rows[0]["sizes"].pop(), "another number of members"),
        (set_to("height", 0), "height"),
        (set_to("width", 10**6), "width"),
    ],
)
def test_wrong_values_are_refused(folder: Path, change: Callable[[Rows], None], message: str) -> None:
    rows = read(folder).to_pylist()
    change(rows)
    put(folder, as_bytes(pa.Table.from_pylist(rows, SCHEMA)))
    with pytest.raises(DataError, match=rf"index\.arrow: a damaged index \(.*{message}"):
        ShardedSplit.open(folder)


def test_offsets_that_lead_out_of_memory_are_refused(folder: Path) -> None:
    content, table = (folder / "index.arrow").read_bytes(), read(folder).combine_chunks()
    for name in ("video", "frame_names", "sizes", "expressions"):
        column = table.column(name).chunk(0)
        offsets = np.frombuffer(column.buffers()[1], np.int32)[: len(column) + 1]
        for place, value in ((1, 2**30), (1, -5), (len(column), 2**31 - 1)):
            wrong = offsets.copy()
            wrong[place] = value
            broken = content.replace(offsets.tobytes(), wrong.tobytes())
            assert broken != content
            put(folder, broken)
            with pytest.raises(DataError, match=r"index\.arrow: a damaged index"):
                ShardedSplit.open(folder)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    content = (folder / "index.arrow").read_bytes()
    name = read(folder).column("video")[0].as_py().encode()
    put(folder, content.replace(name, b"\xff" * len(name)))
    with pytest.raises(DataError, match=r"index\.arrow: a damaged index"):
        ShardedSplit.open(folder)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_an_index_that_was_cut_is_refused(folder: Path, share: float) -> None:
    content = (folder / "index.arrow").read_bytes()
    put(folder, content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"index\.arrow"):
        ShardedSplit.open(folder)


def test_an_index_as_it_was_written_is_read(folder: Path) -> None:
    put(folder, as_bytes(read(folder)))
    assert [entry.video for entry in ShardedSplit.open(folder).videos]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["manifest.json", "index.arrow", "shard-00000.tar"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=rf"{name}: (a named pipe|this shard is missing)"):
        ShardedSplit.open(folder).verify()


@pytest.mark.timeout(20)
def test_a_hole_of_terabytes_in_the_place_of_an_index_is_refused_at_once(folder: Path) -> None:
    os.truncate(folder / "index.arrow", 2**40)
    with pytest.raises(DataError, match=r"index.arrow: a damaged index \(it does not begin and end"):
        ShardedSplit.open(folder)
