"""Rules of choosing key frames, for every length of a video, against a plain reading of the reference's."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from glus.evaluation.predict.key_frames import KeyFrames, frame_of_file
from glus.evaluation.select.selection_rules import best_frame, reference_classes

LENGTHS = range(1, 201)
#: Names as datasets have them: numbered from 0, every fifth, unpadded, the same number twice, words.
names = some.lists(
    some.one_of(
        some.integers(0, 300).map(lambda number: f"{number:05d}"),
        some.integers(0, 300).map(str),
        some.text("ab_0159٣é", min_size=1, max_size=45),
    ),
    min_size=1,
    max_size=20,
    unique=True,
)


@pytest.mark.parametrize("frames", LENGTHS)
def test_references_are_the_frames_congruent_to_the_target(frames: int) -> None:
    classes = reference_classes(frames)
    step = math.ceil(frames / 11)
    seen_with = {target: list(each) for each in classes for target in each}
    assert sorted(seen_with) == list(range(frames)) and sum(map(len, classes)) == frames
    for target, references in seen_with.items():
        due = [frame for frame in range(frames) if frame % step == target % step]
        assert references == due[:12] and len(due) <= 12


@pytest.mark.parametrize("frames", LENGTHS)
def test_without_scores_the_frame_before_the_middle_is_taken(frames: int) -> None:
    chosen = best_frame([math.nan] * frames)
    assert chosen == range(frames)[int(frames / 2) - 1]  # for one frame Python's -1, which is that frame


@given(some.lists(some.floats(width=32), min_size=1, max_size=200))
def test_the_highest_score_is_chosen_and_of_equal_ones_the_later(scores: list[float]) -> None:
    known = [score for score in scores if math.isfinite(score)]
    chosen = best_frame(scores)
    if known:
        assert scores[chosen] == max(known)
        assert all(score < scores[chosen] for score in scores[chosen + 1 :] if math.isfinite(score))
    else:
        assert chosen == range(len(scores))[int(len(scores) / 2) - 1]


def test_zero_and_minus_zero_are_equal() -> None:
    assert best_frame([0.0, -0.0]) == best_frame([-0.0, 0.0]) == 1


def read_back(folder: Path, frame_names: list[str], index: int) -> int | None:
    file = folder / "keys.json"
    file.write_text(json.dumps({"video_7": frame_of_file(frame_names, index)}), encoding="utf-8")
    return KeyFrames.read(file).position("video", "7", frame_names)


@given(frame_names=names)
def test_what_is_written_gives_the_chosen_frame_when_it_is_read(
    frame_names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert [read_back(folder, frame_names, index) for index in range(len(frame_names))] == [*range(len(frame_names))]


@pytest.mark.parametrize("frames", [1, 7, 200])
def test_the_files_form_is_the_references_where_frames_are_numbered_from_0(frames: int) -> None:
    numbered = [f"{number:05d}" for number in range(frames)]
    assert [frame_of_file(numbered, index) for index in range(frames)] == [*range(frames)]


def test_elsewhere_the_number_in_the_files_name_is_written() -> None:
    assert [frame_of_file(["00000", "00005", "00010"], index) for index in range(3)] == [0, 5, 10]
    assert [frame_of_file(["5", "05", "frame"], index) for index in range(3)] == [5, "05", "frame"]
