"""What a study chooses by itself: key frames without a selector, and the expression that a picture shows."""

import json
from pathlib import Path

import numpy as np
import pytest

from glus.common.errors import EvaluationError
from glus.evaluation.results.frame_scores import write_frame_scores
from glus.evaluation.results.scores_file import Scored
from glus.evaluation.results.summary import summarise
from glus.evaluation.score.expression_score import ExpressionScore, FrameScores
from glus.launch.study.key_frame_files import write_key_frames
from glus.launch.study.study_report import median_expression, published_parts


def frames(split: str, video: str, *values: float) -> FrameScores:
    names = tuple(f"{number:05d}" for number in range(len(values)))
    metric = np.array(values, np.float32)
    return FrameScores("mevis", split, video, "0", names, metric, metric, np.zeros(len(values), np.int8))


def test_the_best_key_frame_has_the_highest_j_and_a_random_one_depends_on_the_seed_alone(tmp_path: Path) -> None:
    count = 40
    scored = [frames("valid_u", f"v{video}", *np.roll(np.arange(9), video)) for video in range(count)]
    write_frame_scores(scored, tmp_path)
    write_key_frames(tmp_path / "best.json", tmp_path, "best", 0)
    best = json.loads((tmp_path / "best.json").read_text(encoding="utf-8"))
    assert best == {f"v{video}_0": (8 + video) % 9 for video in range(count)}
    drawn = []
    for seed in (0, 1, 0):
        write_key_frames(tmp_path / "random.json", tmp_path, "random", seed)
        drawn.append(json.loads((tmp_path / "random.json").read_text(encoding="utf-8")))
    assert drawn[0] == drawn[2] != drawn[1] and drawn[0].keys() == best.keys()
    assert set(drawn[0].values()) == set(range(9)), "all frames come"


def test_an_entry_for_two_expressions_is_refused(tmp_path: Path) -> None:
    write_frame_scores([frames("valid_u", "v", 1, 2), frames("train", "v", 1, 2)], tmp_path)
    with pytest.raises(EvaluationError, match=r"video v, expression 0 is in mevis/valid_u and in mevis/train"):
        write_key_frames(tmp_path / "best.json", tmp_path, "best", 0)


def scored(*values: float) -> Scored:
    found = tuple(
        ExpressionScore("mevis", "valid_u", "v", str(n), "a text", "", None, ("1",), 6, False, value, value, value)
        for n, value in enumerate(values)
    )
    return Scored("a title", Path("p"), "s", summarise(found), found)


def test_a_picture_is_of_the_median_difference() -> None:
    assert median_expression(scored(10, 20, 30), scored(15, 60, 20), "mevis/valid_u") == ("mevis/valid_u/v/0", 5.0)
    even = median_expression(scored(0, 0, 0, 0), scored(4, 1, 3, 2), "mevis/valid_u")
    assert even == ("mevis/valid_u/v/3", 2.0)
    assert median_expression(scored(1), scored(2), "mevis/train") is None


def test_published_parts_are_those_of_published_results_and_name_their_source() -> None:
    found = {each.benchmark: each for each in published_parts()}
    assert (found["mevis/valid"].full, found["mevis/valid"].without) == (50.3, 49.5)
    assert all("GLUS" in each.source for each in found.values())
