"""What expressions say of each object, as labels: hand-made cases."""

import numpy as np
import pytest

from glus.common.errors import DataError
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.sampling.attributes import object_attributes, word_groups
from glus.data_pipeline.sampling.sample_plan import SamplingConfig

GROUPS = {"motion": ("left", "up|upwards", "still|stops|not"), "colour": ("red", "blue")}


def said(*texts: tuple[str, str, str]) -> list[Expression]:
    """(text, ids separated by blanks, kind)"""
    return [Expression(str(n), text, tuple(ids.split()), kind) for n, (text, ids, kind) in enumerate(texts)]


def labels(*texts: tuple[str, str, str]) -> list[list[int]]:
    return object_attributes(said(*texts), ["1", "2"], word_groups(GROUPS)).tolist()


def test_a_word_of_a_group_that_is_said_of_an_object_alone_is_its_label() -> None:
    assert labels(("the red one moving upwards", "1", "motion"), ("Blue!", "2", "look")) == [[1, 0], [-1, 1]]


def test_words_of_several_objects_and_of_places_label_nothing() -> None:
    assert labels(("the red ones", "1 2", "several"), ("the one on the left", "1", "relation")) == [[-1, -1]] * 2
    assert labels(("the red one is not there", "", "")) == [[-1, -1]] * 2


def test_datasets_without_kinds_are_read() -> None:
    assert labels(("red bird going left", "2", "")) == [[-1, -1], [0, 0]]


def test_two_words_of_a_group_leave_it_unknown_whichever_comes_first() -> None:
    clear, unclear = ("moving left", "1", "motion"), ("moving left and then stops", "1", "motion")
    assert labels(unclear, clear) == labels(clear, unclear) == [[-1, -1], [-1, -1]]
    assert labels(clear, ("moving up", "1", "motion"), clear) == [[-1, -1], [-1, -1]]


def test_parts_of_words_are_no_words() -> None:
    assert labels(("the leftmost reddish upward thing", "1", "")) == [[-1, -1], [-1, -1]]


def test_labels_are_int64_one_row_an_object() -> None:
    found = object_attributes([], ["1", "2", "3"], word_groups(GROUPS))
    assert found.dtype == np.int64 and found.shape == (3, 2) and (found == -1).all()


@pytest.mark.parametrize("words", [("left",), ("left", "left"), ("left", "up|left"), ("Left", "up"), ("left", "")])
def test_a_group_that_labels_nothing_clearly_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"sampling.attributes.motion is .* give two or more"):
        SamplingConfig(mixture={"mevis/train": 1}, attributes={"motion": words})
