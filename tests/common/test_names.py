"""Names of videos, frames, expressions, objects, sources and shards."""

import pytest

from glus.common.errors import InputError
from glus.common.names import LONGEST_NAME, case_twins, check_name, check_path, check_unique

GOOD = ["0", "00005", "one.video", "0062f687f1", "a-b_c~d", "Ünï", "x..", "v" * LONGEST_NAME, "a b", "é" * 100]
BAD = [
    *("", ".", "..", ".hidden", "0/", "/0", "a/b", "a\\..\\evil", "..\\x", "a\0b", "a\x1b[31m", "a\nb", "\x7f", "\x85"),
    *("a\u2028b", "\ud800", "v" * (LONGEST_NAME + 1), "é" * 101, "x" * 300, "\\"),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_is_one_component_is_returned_as_it_is(name):
    assert check_name(name, "video") is name and check_path(name, "video") is name


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", ["video", "frame", "expression", "object", "source", "shard"])
def test_other_names_are_refused_in_one_printable_line_that_says_where(name, kind):
    with pytest.raises(InputError) as caught:
        check_name(name, kind, "meta.json: video v")
    text = str(caught.value)
    assert text.startswith(f"meta.json: video v: the {kind} name ") and text.isprintable() and len(text) < 300


def test_a_path_is_taken_component_by_component_and_must_be_canonical():
    assert check_path("TAO/train/v_1", "video") == "TAO/train/v_1"
    for name in [
        "a//b",
        "a/",
        "/a",
        "a/./b",
        "a/../b",
        "../a",
        "a/.b",
        "a/b\\c",
        f"a/{'x' * 201}",
        "/".join("x" * 900),
    ]:
        with pytest.raises(InputError, match="the video name"):
            check_path(name, "video")


def test_two_names_that_would_share_a_folder_are_refused():
    check_unique(["w", "w1", "W", "v/1", "v/2"], "video")
    with pytest.raises(InputError, match=r"m\.json: the videos 'w' and 'w' would share a folder"):
        check_unique(["w", "v", "w"], "video", "m.json")
    with pytest.raises(InputError, match="share a folder"):
        check_unique(["caf\u00e9", "cafe\u0301"], "expression")
    for names in (["w", "w/1"], ["w/1/2", "x", "w"]):
        with pytest.raises(InputError, match="the videos 'w' and 'w/1.*' would share a folder"):
            check_unique(names, "video")


def test_names_that_differ_only_in_case_are_listed():
    assert case_twins(["a", "B", "A", "b", "c", "a/x", "A/X"]) == [("a", "A"), ("B", "b"), ("a/x", "A/X")]
