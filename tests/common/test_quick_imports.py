"""Imports of large libraries cause no garbage collections, and everything after them does again."""

import gc
import sys
from pathlib import Path

import pytest

from glus.common.imports import quick_imports
from glus.launch import cli


def test_nothing_is_collected_in_the_block_and_all_is_after_it() -> None:
    seen: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        seen.append(phase)

    gc.callbacks.append(note)
    try:
        with quick_imports():
            held = [[] for _ in range(100_000)]
            assert seen == [] and len(held) == 100_000
        held = [[] for _ in range(100_000)]
        assert "start" in seen
    finally:
        gc.callbacks.remove(note)


def test_it_is_on_again_after_an_error_and_stays_off_where_it_was_off() -> None:
    with pytest.raises(ImportError), quick_imports():
        raise ImportError("no such library")
    assert gc.isenabled()
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_command_collects_garbage_while_it_works_and_none_while_it_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "own_command.py"
    place.write_text(
        "import gc\nfrom glus.launch.commands.completion import CompletionConfig\nLOADING = gc.isenabled()\n"
        "def run(config):\n    global WORKING\n    WORKING = gc.isenabled()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command = cli.Command("own_command:run", "own_command:CompletionConfig", "", first="shell")
    monkeypatch.setitem(cli.COMMANDS, "own", command)
    assert cli.main(["own", "bash"]) == 0
    module = sys.modules.pop("own_command")
    assert (module.LOADING, module.WORKING) == (False, True)
