"""The one JSON reader: whatever is wrong with a file is one message with the place and what to do."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import InputError, UserError
from glus.common.json_file import DEEPEST, parse_json, parsed_as, read_as, read_json, read_object


class OtherError(UserError):
    """A layer's own."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a":\n 1,,}', r"line 2, column 4"),
        (b"", r"line 1, column 1"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"integer of 5000 digits"),
        (b"-" + b"9" * 41, r"integer of 42 digits"),
        (b"[" * 100_000, r"more than 64 deep"),
        (b"[" * 100_000 + b"]" * 100_000, r"more than 64 deep"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, r"more than 64 deep"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), r"more than 64 deep"),
        (b'{"a": 1, "b": 2, "a": 1}', r"has 'a' twice"),
        (b"[NaN]", r"NaN is no number"),
        (b"[-Infinity]", r"-Infinity is no number"),
        (b"[1e999]", r"number '1e999' is too large"),
        (b'["\\ud800"]', r"half of a surrogate pair"),
        (b'{"\\udfff": 1}', r"half of a surrogate pair"),
        (b'["a\\u0000b"]', r"NUL"),
        (b'["\xed\xa0\x80"]', r"no UTF-8 text \(byte 2 is 0xed\)"),
        (b'["\xff"]', r"no UTF-8 text \(byte 2 is 0xff\): save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16"), r"looks like UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), r"looks like UTF-16"),
        ('{"a": 1}'.encode("utf-32-be"), r"looks like UTF-16 or UTF-32"),
        ('["\ud800"]', r"no UTF-8"),
        (b'["\x01"]', r"control character"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_the_place_and_what_to_do(content: bytes | str, message: str) -> None:
    with pytest.raises(OtherError, match=rf"^it\.json: .*{message}.*; buy another$") as caught:
        parse_json(content, "it.json", remedy="buy another", raises=OtherError, file="it.json")
    assert "\n" not in str(caught.value) and caught.value.file == "it.json"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'["\\ud83d\\ude00", "\\\\u0000", "\\\\ud800"]', ["\U0001f600", "\\u0000", "\\ud800"]),
        (b'["' + b"9" * 60 + b'", 12345678901234567890]', ["9" * 60, 12345678901234567890]),
        (b"[1" + b"0" * 30 + b", 0." + b"3" * 60 + b"]", [10**30, float("0." + "3" * 60)]),
        (b"[" * DEEPEST + b"]" * DEEPEST, json.loads("[" * DEEPEST + "]" * DEEPEST)),
        (b"null", None),
    ],
)
def test_what_is_unusual_but_right_is_read(content: bytes, value: object) -> None:
    assert parse_json(content, "it.json") == value


def test_half_a_surrogate_pair_is_left_to_a_caller_that_checks_texts_itself() -> None:
    assert parse_json(b'["\\ud800"]', "it.json", checked_texts=False) == ["\ud800"]


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\u0ed81-.einfNat \n', max_size=40).map(str.encode))
def test_any_bytes_are_what_json_says_or_one_message(content: bytes) -> None:
    try:
        found = parse_json(content, "it.json")
    except InputError as error:
        assert str(error).startswith("it.json: ") and "\n" not in str(error)
    else:
        assert found == json.loads(content)


def test_a_file_is_opened_only_where_it_is_regular_and_of_a_fitting_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_text("[1, 2, 3]")
    for path, message in (
        (tmp_path / "pipe.json", "named pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path, "folder"),
        (tmp_path / "absent.json", "no such run state"),
        (tmp_path / "a\0b", "path"),
        (tmp_path / "large.json", "more than 5 bytes"),
    ):
        with pytest.raises(OtherError, match=message):
            read_json(path, "run state", largest=5, raises=OtherError)
    assert read_json(tmp_path / "large.json") == [1, 2, 3]
    with pytest.raises(InputError, match="a JSON list where an object is wanted"):
        read_object(tmp_path / "large.json")


@dataclass(frozen=True)
class Noted:
    """What a file says."""

    step: int
    names: tuple[str, ...] = ()
    loss: float | None = None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "step: Field required"),
        ({"step": "7"}, "step: Input should be a valid integer"),
        ({"step": True}, "step: Input should be a valid integer"),
        ({"step": 1.5}, "step: Input should be a valid integer"),
        ({"step": None}, "step: Input should be a valid integer"),
        ({"step": 1, "names": "ab"}, "names: Input should be a valid"),
        ({"step": 1, "names": [1]}, "names.0: Input should be a valid string"),
        ({"step": 1, "loss": "nan"}, "loss: Input should be a valid number"),
        ({"step": 1, "other": 1}, "other: unknown key"),
        ([1], "a JSON list where an object is wanted"),
        (None, "a JSON null where an object is wanted"),
    ],
)
def test_a_value_of_another_type_is_named(content: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"^n\.json: {message}"):
        parsed_as(content, Noted, "n.json")


def test_values_of_the_right_types_become_the_dataclass(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text('{"step": 3, "names": ["a"], "loss": 1}')
    assert read_as(tmp_path / "n.json", Noted) == Noted(3, ("a",), 1.0)
