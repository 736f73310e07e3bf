"""Key frames in the reference's form: which frame an expression begins at, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from glus.common.errors import EvaluationError
from glus.evaluation.predict.key_frames import KeyFrames

NAMES = ("00000", "00005", "00010")


def written(folder: Path, content: Any) -> Path:
    (folder / "keys.json").write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder / "keys.json"


def test_a_frame_is_named_by_the_number_in_its_file_name(tmp_path: Path) -> None:
    given = {"bear_0": 5, "bear_1": "00010", "bear_2": "5", "bear_3": 10.0, "a_b_7": "frame_2"}
    keys = KeyFrames.read(written(tmp_path, given))
    assert [keys.position("bear", str(number), NAMES) for number in range(5)] == [1, 2, 1, 2, None]
    assert keys.position("a_b", "7", ("frame_1", "frame_2")) == 1
    assert keys.position("bear", "0", ("5", "6")) == 0
    assert keys.position("a_b", "7", ("frame_1", "5", "frame_2")) == 2


@pytest.mark.parametrize("value", ["9" * 5000, 1e300])
def test_a_frame_number_of_any_length_is_a_frame_that_is_not_there(tmp_path: Path, value: Any) -> None:
    with pytest.raises(EvaluationError, match="which video bear does not have"):
        KeyFrames.read(written(tmp_path, {"bear_0": value})).position("bear", "0", NAMES)


def test_a_frame_that_the_video_lacks_is_told(tmp_path: Path) -> None:
    keys = KeyFrames.read(written(tmp_path, {"bear_0": 7}))
    with pytest.raises(EvaluationError, match="bear_0 names frame 7, which video bear does not have: its 3 frames are"):
        keys.position("bear", "0", NAMES)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b'\xef\xbb\xbf{"bear_0": 7}\r\n')
    assert KeyFrames.read(tmp_path / "keys.json").position("bear", "0", ["00006", "00007"]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"keys\.json: broken JSON at line 1, column 2 \(.*\); wanted is \{\"VIDEO_EXPID\": FRAME, \.\.\.\}"),
        ("[1]", r"keys\.json: a JSON list where an object is wanted; wanted is"),
        ('{"a_0": null}', r"keys\.json: a_0 is null; wanted is"),
        ('{"a_0": true}', r"keys\.json: a_0 is true; wanted is"),
        ('{"a_0": 1.5}', r"keys\.json: a_0 is 1\.5; wanted is"),
        ('{"a_0": {"a_1": 2}}', r"keys\.json: a_0 is \{"),
        ('{"a_0": 1, "a_0": 2}', r"keys\.json: has 'a_0' twice; wanted is"),
        ("\udcff", r"keys\.json: no UTF-8 text"),
        ('{"a_0": 1e999}', r"keys\.json: the number '1e999' is too large"),
    ],
)
def test_a_file_of_another_form_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(EvaluationError, match=message):
        KeyFrames.read(tmp_path / "keys.json")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none\.json: no such file of key frames"):
        KeyFrames.read(tmp_path / "none.json")
