"""Differences of two evaluations: worked out by hand, the same whichever comes first, and a plain word for zero."""

import random

import pytest

from glus.evaluation.results.paired import NO_DIFFERENCE, OVERALL, paired_differences
from glus.evaluation.score.expression_score import ExpressionScore


def scored(video, number, metric, dataset="mevis", split="valid_u", type_id=None):
    return ExpressionScore(
        dataset, split, video, str(number), "a text", "", type_id, ("1",), 6, False, metric, metric, metric
    )


def test_two_videos_worked_out_by_hand():
    """Of two videos a draw has one of them twice, or both: its difference is 2, 10 or, over 3 + 1 expressions, 4."""
    first = [scored("a", n, 50.0) for n in range(3)] + [scored("b", 0, 30.0)]
    own = [scored("a", n, 52.0) for n in range(3)] + [scored("b", 0, 40.0)]
    found = paired_differences(own, first)
    assert set(found) == {"mevis/valid_u", OVERALL}
    for each in found.values():
        assert (each.expressions, each.JF, each.verdict) == (4, 4.0, "higher")
        assert (each.interval.low, each.interval.high) == (2.0, 10.0)
    lower = [scored("a", n, 46.0) for n in range(3)] + [scored("b", 0, 40.0)]
    [of_split, _] = paired_differences(lower, first).values()
    assert (of_split.JF, of_split.interval.low, of_split.interval.high) == (-0.5, -4.0, 10.0)
    assert of_split.verdict == NO_DIFFERENCE == "no difference shown"


def test_revos_is_compared_as_it_is_averaged_by_its_halves():
    """Referring gains 2 three times and 0 once, reasoning 10 and 0: (1.5 + 5) / 2; a draw gives 6, 3.25 or 0."""
    names = [
        ("a", 0, 0, 2.0),
        ("a", 1, 0, 2.0),
        ("a", 2, 0, 2.0),
        ("a", 3, 1, 10.0),
        ("b", 0, 0, 0.0),
        ("b", 1, 1, 0.0),
    ]
    first = [scored(video, n, 50.0, "revos", "valid", kind) for video, n, kind, _ in names]
    own = [scored(video, n, 50.0 + gain, "revos", "valid", kind) for video, n, kind, gain in names]
    found = paired_differences(own, first)["revos/valid"]
    assert (found.JF, found.interval.low, found.interval.high) == (3.25, 0.0, 6.0)
    assert found.verdict == NO_DIFFERENCE, "an interval that touches zero holds it"
    assert "revos/valid" not in paired_differences(own[:3], first[:3]), "without reasoning it has no overall value"


def test_two_equal_runs_show_no_difference():
    chance = random.Random(1)
    run = [scored(f"v{n % 7}", n, 100 * chance.random()) for n in range(40)]
    for found in paired_differences(run, list(run)).values():
        assert (found.JF, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)
        assert found.verdict == NO_DIFFERENCE


def test_the_draws_are_the_same_whichever_run_comes_first():
    """Another order of the expressions, and the runs exchanged: the same interval with the other sign."""
    chance = random.Random(2)
    one = [scored(f"v{n % 11}", n, 100 * chance.random()) for n in range(60)]
    two = [scored(f"v{n % 11}", n, 100 * chance.random()) for n in range(60)]
    chance.shuffle(two)
    there, back = paired_differences(one, two)[OVERALL], paired_differences(two, one)[OVERALL]
    assert there.JF == pytest.approx(-back.JF)
    assert (there.interval.low, there.interval.high) == pytest.approx((-back.interval.high, -back.interval.low))
    assert there.interval.low < there.JF < there.interval.high


def test_only_expressions_of_both_count_and_one_video_has_no_interval():
    first = [scored("a", 0, 10.0), scored("b", 0, 90.0)]
    found = paired_differences([scored("a", 0, 30.0), scored("c", 0, 0.0)], first)[OVERALL]
    assert (found.expressions, found.JF, found.interval, found.verdict) == (1, 20.0, None, "one video, no interval")
    assert paired_differences([scored("c", 0, 0.0)], first) == {}
