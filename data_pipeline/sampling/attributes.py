"""What expressions say of each object: one word of each group ("motion": left, right ...), where they agree.

Labels for pretraining a model without released weights (docs/study.md). They come from expressions alone.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.data_pipeline.raw.records import Expression

#: Kinds of expressions that are read; "" is the kind where the annotation has none. "The leftmost one" (a relation)
#: does not move left.
KINDS = ("look", "motion", "")
#: Between words of one meaning.
OR = "|"
#: The words of one meaning, for each word of each group.
WordGroups = Sequence[Sequence[frozenset[str]]]
_WORD = re.compile(r"[a-z]+")


def check_attributes(attributes: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError for a group of fewer than two words, or a word that stands in a group twice."""
    for group, words in attributes.items():
        parts = [part for word in words for part in word.split(OR)]
        if len(words) < 2 or len(set(parts)) < len(parts) or not all(map(_WORD.fullmatch, parts)):
            raise DataError(
                f"sampling.attributes.{group} is {list(words)}: give two or more different words of small letters, "
                f"with {OR!r} between words of one meaning"
            )


def word_groups(attributes: Mapping[str, Sequence[str]]) -> WordGroups:
    """Split the words of each group at `OR`, once for all videos."""
    return [[frozenset(word.split(OR)) for word in words] for words in attributes.values()]


def object_attributes(
    expressions: Sequence[Expression], object_ids: Sequence[str], groups: WordGroups
) -> NDArray[np.int64]:
    """int64 [O, G]: the place in each group of the word that is said of each object alone; -1 where none or two are.

    `groups` are those of `word_groups`.
    """
    found = np.full((len(object_ids), len(groups)), -1, dtype=np.int64)
    row = {object_id: number for number, object_id in enumerate(object_ids)}
    unclear = np.zeros(found.shape, dtype=np.bool_)
    for expression in expressions:
        if len(expression.object_ids) != 1 or expression.kind not in KINDS:
            continue
        number = row[next(iter(expression.object_ids))]
        said = set(_WORD.findall(expression.text.lower()))
        for column, words in enumerate(groups):
            held = [place for place, word in enumerate(words) if word & said]
            before = found[number, column]
            if len(held) > 1 or (held and before not in (-1, held[0])):
                unclear[number, column] = True
            elif held:
                found[number, column] = held[0]
    found[unclear] = -1
    return found
