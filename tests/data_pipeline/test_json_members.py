"""Members of a large JSON object, read one at a time."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.data_pipeline.raw.annotation_file import JsonMembers, open_members, read_annotation

TEXTS = st.text(alphabet=st.sampled_from('a0[]{}",:\\é \n'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
BRACKETED = st.lists(VALUES, max_size=3) | st.dictionaries(TEXTS, VALUES, max_size=3)


@given(
    content=st.dictionaries(TEXTS, BRACKETED, min_size=1, max_size=5),
    block=st.integers(1, 40),
    layout=st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}]),
)
def test_members_are_those_that_the_whole_file_gives(tmp_path_factory, content, block, layout):
    path = tmp_path_factory.mktemp("members") / "masks.json"
    path.write_text(json.dumps(content, **layout), encoding="utf-8")
    members = open_members(path, block)
    assert isinstance(members, JsonMembers) and len(members) == len(content)
    assert dict(members) == content and list(members) == list(content)


@given(st.binary(max_size=30) | st.text(alphabet=st.sampled_from('{}[]",:a\\ 1'), max_size=20).map(str.encode))
def test_any_other_file_says_what_reading_it_whole_says(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("members") / "masks.json"
    path.write_bytes(content)
    try:
        wanted = read_annotation(path)
    except DataError as error:
        # A member that is broken inside is told when it is asked for.
        with pytest.raises(DataError) as caught:
            dict(open_members(path))
        assert str(path) in str(caught.value) and str(error)
    else:
        assert dict(open_members(path)) == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0": [}', r"masks\.json: broken JSON at line 1, column 8"),
        ('{"0": [1], "0": [2]}', r"masks\.json: has '0' twice"),
        ('{"0": [1],, "1": [2]}', r"masks\.json: broken JSON"),
        ('{"0": [1]} {"1": [2]}', r"masks\.json: broken JSON"),
        ('["0", {"1": [2]}]', r"masks\.json: a JSON list where an object is wanted"),
    ],
)
def test_a_broken_file_is_refused_when_it_is_opened(tmp_path, content, message):
    (tmp_path / "masks.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_members(tmp_path / "masks.json")


def test_a_broken_member_is_refused_when_it_is_asked_for(tmp_path):
    (tmp_path / "masks.json").write_text('{"0": [1], "1": [1,, 2], "2": {"a": 1, "a": 2}}')
    members = open_members(tmp_path / "masks.json")
    assert members["0"] == [1] and "3" not in members
    with pytest.raises(DataError, match=r"masks\.json, '1' from byte 16 on: broken JSON at line 1, column 4"):
        members["1"]
    with pytest.raises(DataError, match=r"masks\.json, '2' from byte 30 on: has 'a' twice"):
        members["2"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("read", [read_annotation, open_members])
def test_a_byte_order_mark_is_passed_over_and_other_encodings_are_named(tmp_path, encoding, read):
    path = tmp_path / "a.json"
    path.write_bytes('{"videos": {}}'.encode(encoding))
    if encoding == "utf-8-sig":
        assert dict(read(path)) == {"videos": {}}
    else:
        with pytest.raises(DataError, match=r"a\.json: no UTF-8 text \(it looks like UTF-16 or UTF-32\): save it"):
            read(path)


def test_an_annotation_that_cannot_be_looked_at_is_refused_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"link\.json: a link to .*gone\.json, which is not there"):
        read_annotation(tmp_path / "link.json")
    with pytest.raises(DataError, match="File name too long"):
        read_annotation(tmp_path / ("n" * 300 + ".json"))

    def forbidden(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", forbidden)
    with pytest.raises(DataError, match="no permission to read the file: ask its owner"):
        read_annotation(tmp_path / "a.json")
