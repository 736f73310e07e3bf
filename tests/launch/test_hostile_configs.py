"""Configs that would hang, fill the memory or end in a traceback: each is refused at once, in one line."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from glus.common.errors import LaunchError
from glus.launch.config.configuration import load_config


@dataclass(frozen=True)
class Optimizer:
    """A section."""

    rate: float = 1.0


@dataclass(frozen=True)
class Run:
    """A run for these tests."""

    out: Path
    optimizer: Optimizer = field(default_factory=Optimizer)
    datasets: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    note: str = ""


def write(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "has more than 10,000 values"),
        ("note: &a [*a]\n", r"\*a lies in &a, so it has no end"),
        ("a: &a\n  b:\n    c: *a\n", r"line 3, column 8: .*\*a lies in &a"),
        ("a: " + "[" * 100_000, "more than 64 deep"),
        ("".join(" " * level + "a:\n" for level in range(300)), "more than 64 deep"),
        ("- " * 100_000, "more than 64 deep"),
        ("a: [" + "1," * 100_000 + "]", "has more than 10,000 values"),
        ("a: " + "b" * 300_000, "more than 262,144 bytes"),
        ("a: 9" + "9" * 5000, "no integer of at most 40 digits"),
        ("a: 0x" + "f" * 5000, "no integer of at most 40 digits"),
        ("a: 1e999", "number '1e999' is too large"),
        ("a: b\0", r"character U\+0000 may not stand in YAML"),
        ("a: b\n\nc: \x07", r"line 3: .*U\+0007"),
        ('a: "\\0"', "NUL"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ('a: "\\U00110000"', "not readable as YAML"),
        ("a: !!int abc", "'abc' is no integer"),
        ("a: !!float abc", "'abc' is no number"),
        ("a: !!bool abc", "'abc' is neither true nor false"),
        ("a: !!timestamp abc", "could not determine a constructor"),
        ("a: !!binary abc", "could not determine a constructor"),
        ("a: {!!merge <<: {b: 1}}", "could not determine a constructor"),
        ("a: *b", "undefined alias"),
    ],
)
def test_hostile_yaml_is_refused_at_once_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message) as caught:
        load_config(Run, write(tmp_path, text), [])
    assert "\n" not in str(caught.value)
    if len(text) < 262_144:
        with pytest.raises(LaunchError):
            load_config(Run, None, ["out=a", f"optimizer={text}"])


def test_a_list_inside_a_text_is_read_by_the_same_rules() -> None:
    for value in ("[&a [*a]]", "[" * 5000, "[!!timestamp x]", '["\\ud800"]'):
        with pytest.raises(LaunchError, match="datasets"):
            load_config(Run, None, ["out=x", f"datasets={value}"])
    assert load_config(Run, None, ["out=x", "datasets=[no, '1']"]).datasets == ("no", "1")


@pytest.mark.parametrize("words", [["out=\udcff"], ["out=a", "note=a\0"], ["out=a", "weights.\ud800=1"]])
def test_a_word_that_is_no_text_is_refused(words: list[str]) -> None:
    with pytest.raises(LaunchError, match=r"holds NUL or bytes that are no UTF-8|no key|no override"):
        load_config(Run, None, words)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_config_in_another_encoding_says_so_and_one_with_a_byte_order_mark_is_read(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes("out: ä\n".encode(encoding))
    with pytest.raises(LaunchError, match="no UTF-8 text"):
        load_config(Run, file, [])
    file.write_bytes(b"\xef\xbb\xbf" + "out: ä\n".encode())
    assert load_config(Run, file, []).out == Path("ä")


def test_an_alias_that_ends_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, "out: &name a\nnote: *name\ndatasets: [*name, b]\n")
    assert load_config(Run, file, []) == Run(Path("a"), note="a", datasets=("a", "b"))


@pytest.mark.timeout(20)
def test_a_pipe_or_device_as_a_config_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.yaml")
    for place, message in ((tmp_path / "run.yaml", "named pipe"), (Path("/dev/zero"), "device"), (tmp_path, "folder")):
        with pytest.raises(LaunchError, match=message):
            load_config(Run, place, ["out=a"])
