"""Files written aside: their temporary names fit wherever their own do."""

import socket
from pathlib import Path

import pytest

from glus.common.atomic import write_atomic


@pytest.mark.parametrize("name", ["n" * 200 + ".json", "\u00e9" * 100 + ".json"])
def test_the_longest_name_is_written_on_a_machine_of_the_longest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 64)
    write_atomic(tmp_path / name, b"content")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"content")]
