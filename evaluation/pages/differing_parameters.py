"""Parameters that differ between runs, short: lists as one row for each entry that some of the runs have."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from glus.evaluation.pages.rows import ABSENT, Row, Section, compare_params

#: What names a run or its place, and changes nothing of it.
_NAMES = ("name", "out")
_PLACES = "tracking."
#: Characters of a value that are shown; of a longer one its beginning and end.
_LONGEST = 48
_TRAINABLE = "trainable"
_OWN = "the method's own"


def parameter_sections(labels: Sequence[str], params: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The table of parameters that differ, and one for each long list among them; runs without any are left out."""
    known = [run for run, each in enumerate(params) if each]
    columns = tuple(labels[run] for run in known)
    rows = compare_params([params[run] for run in known])
    rows = [row for row in rows if row.name not in _NAMES and not row.name.startswith(_PLACES)]
    lists = {row.name: found for row in rows if (found := _lists(row)) is not None}
    plain = tuple(Row(row.name, tuple(map(_short, row.values))) for row in rows if row.name not in lists)
    sections = [Section("Parameters that differ", columns, plain)] if plain else []
    for name, entries in lists.items():
        title = "Trained parts that differ" if name == _TRAINABLE else f"{name}: entries that differ"
        sections.append(Section(title, columns, tuple(_entries(entries))))
    return sections


def _lists(row: Row) -> list[list[str] | None] | None:
    """The values as lists of texts, None for a run without the parameter; None where they are no long lists."""
    found: list[list[str] | None] = []
    for text in row.values:
        if text == ABSENT:
            found.append(None)
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            return None
        found.append(value or ([_OWN] if row.name == _TRAINABLE else []))
    return found if any(len(text) > _LONGEST for text in row.values) else None


def _entries(lists: Sequence[Sequence[str] | None]) -> list[Row]:
    names = dict.fromkeys(name for each in lists for name in each or ())
    rows = [Row(name, tuple(ABSENT if name not in (each or ()) else "yes" for each in lists)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
