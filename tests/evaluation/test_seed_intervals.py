"""Intervals over seeds and videos: worked out by hand, differences that are there found, coverage, equal arms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glus.common.errors import EvaluationError
from glus.evaluation.results import seed_intervals
from glus.evaluation.results.paired import NO_DIFFERENCE
from glus.evaluation.results.seed_intervals import (
    NOT_REACHED,
    Values,
    seed_difference,
    seed_mean,
    steps_difference,
    steps_to_reach,
)


def crossed(chance: np.random.Generator, seeds: int, videos: int, *deviations: float) -> dict[tuple, float]:
    """Values with an effect of each seed, of each video and of each pair of them, mean 50."""
    of_seed, of_video, of_both = deviations
    table = 50 + of_seed * chance.normal(size=(seeds, 1)) + of_video * chance.normal(size=(1, videos))
    table = table + of_both * chance.normal(size=(seeds, videos))
    return {(seed, video, "e"): float(table[seed, video]) for seed in range(seeds) for video in range(videos)}


def shifted(values: Values, by: float) -> dict[tuple, float]:
    return {name: value + by for name, value in values.items()}


def test_two_seeds_and_two_videos_worked_out_by_hand() -> None:
    """Value = 10 * seed + video: a draw of seeds has mean 0, 5 or 10, of videos 0, 0.5 or 1; corners are 1 of 16."""
    found = seed_mean({(seed, video, "e"): 10.0 * seed + video for seed in range(2) for video in range(2)})
    assert found is not None
    assert (found.value, found.seeds, found.videos) == (5.5, (0, 1), 2)
    assert found.interval is not None and (found.interval.low, found.interval.high) == (0.0, 11.0)


def test_videos_with_more_expressions_count_for_more() -> None:
    values = {(0, "a", n): 0.0 for n in range(3)} | {(0, "b", 0): 8.0}
    found = seed_mean(values)
    assert found is not None and found.interval is not None
    assert (found.value, found.interval.low, found.interval.high) == (2.0, 0.0, 8.0)


def test_one_seed_is_resampled_over_videos_alone() -> None:
    chance = np.random.default_rng(0)
    one = crossed(chance, 1, 40, 0, 5, 1)
    copies = one | {(1, video, name): value for (_, video, name), value in one.items()}
    alone, twice = seed_mean(one), seed_mean(copies)
    assert alone and twice and alone.interval and twice.interval
    assert alone.interval.low == pytest.approx(twice.interval.low, abs=0.2), "an equal seed adds no spread"


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_equal_arms_differ_by_nothing(seeds: int, videos: int, draw: int) -> None:
    values = crossed(np.random.default_rng(draw), seeds, videos, 4, 4, 4)
    found = seed_difference(values, dict(reversed(values.items())))
    assert found is not None and found.value == 0
    if seeds * videos < 2:
        assert found.interval is None and found.verdict == "one video and seed, no interval"
    else:
        assert found.interval is not None and (found.interval.low, found.interval.high) == (0, 0)
        assert found.verdict == NO_DIFFERENCE


@given(st.floats(3, 30), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_a_difference_that_is_there_is_found_whatever_seeds_and_videos_share(gap: float, up: bool, draw: int) -> None:
    """Both arms have the same hard videos and good seeds, which the pairing takes out."""
    chance = np.random.default_rng(draw)
    base = crossed(chance, 3, 40, 10, 20, 0)
    arm = {name: value + (gap if up else -gap) + chance.normal() for name, value in base.items()}
    found = seed_difference(arm, base)
    assert found is not None and found.interval is not None
    assert found.verdict == ("higher" if up else "lower")
    assert found.interval.low < found.value < found.interval.high
    back = seed_difference(base, arm)
    assert back is not None and back.interval is not None
    assert (back.value, back.interval.low) == pytest.approx((-found.value, -found.interval.high))


def test_only_what_both_arms_were_asked_counts() -> None:
    base = {(0, "a", 0): 10.0, (0, "b", 0): 90.0, (1, "a", 0): 0.0}
    found = seed_difference({(0, "a", 0): 30.0, (0, "c", 0): 0.0}, base)
    assert found is not None and (found.value, found.seeds, found.videos, found.interval) == (20.0, (0,), 1, None)
    assert seed_difference({(0, "c", 0): 1.0}, base) is None and seed_mean({}) is None


@pytest.mark.slow
@pytest.mark.parametrize(("deviations", "least"), [((0.0, 6.0, 6.0), 0.92), ((1.0, 6.0, 6.0), 0.85)])
def test_coverage_of_three_seeds_and_sixty_videos(
    monkeypatch: pytest.MonkeyPatch, deviations: tuple[float, float, float], least: float
) -> None:
    """Of two independent trainings of one recipe: the true difference is 0. Of 95 % wanted."""
    monkeypatch.setattr(seed_intervals, "DRAWS", 1000)
    chance, covered = np.random.default_rng(1), []
    for _ in range(300):
        arms = [crossed(chance, 3, 60, *deviations) for _ in range(2)]
        found = seed_difference(*arms)
        assert found is not None and found.interval is not None
        covered.append(found.interval.low <= 0 <= found.interval.high)
    print(f"deviations {deviations}: coverage {np.mean(covered):.3f}")
    assert least <= np.mean(covered) <= 1


def curve(*means: float, seeds: int = 1) -> dict[int, dict[tuple, float]]:
    """Values of two videos that differ by nothing, at steps 100, 200, ..."""
    return {
        100 * step: {(seed, video, "e"): mean for seed in range(seeds) for video in "ab"}
        for step, mean in enumerate(means, 1)
    }


def test_steps_to_an_accuracy_are_interpolated_between_evaluations() -> None:
    found = steps_to_reach(curve(25, 50, 100), 75)
    assert found is not None and found.value == 250 and found.interval is not None
    assert (found.interval.low, found.interval.high) == (250, 250)
    at_once = steps_to_reach(curve(80, 90), 75)
    assert at_once is not None and at_once.value == 100
    falls = steps_to_reach(curve(50, 80, 60), 75)
    assert falls is not None and falls.value == pytest.approx(100 + 100 * 25 / 30), "the first time counts"
    assert steps_to_reach({}, 75) is None and steps_to_reach({100: {}}, 75) is None


def test_an_accuracy_that_is_not_reached_is_a_value_of_its_own() -> None:
    never, late, soon = curve(10, 20, 30), curve(25, 50, 100), curve(75, 80, 90)
    missed = steps_to_reach(never, 75)
    assert missed is not None and missed.value == NOT_REACHED and missed.interval is not None
    assert math.isinf(missed.interval.low) and math.isinf(missed.interval.high)
    for arm, base, value, verdict in (
        (never, late, math.inf, "higher"),
        (late, never, -math.inf, "lower"),
        (never, curve(0, 0, 0), 0.0, NO_DIFFERENCE),
        (late, soon, 150.0, "higher"),
        (soon, soon, 0.0, NO_DIFFERENCE),
    ):
        found = steps_difference(arm, base, 75)
        assert found is not None and (found.value, found.verdict) == (value, verdict)


def test_steps_of_draws_that_do_not_reach_it_make_the_upper_end_infinite() -> None:
    """Video a reaches 100, video b nothing: a draw of b alone, one of four, never reaches it."""
    one = {step: {(0, "a", "e"): float(step), (0, "b", "e"): 60.0} for step in (50, 100)}
    found = steps_to_reach(one, 75)
    assert found is not None and found.interval is not None
    assert found.value == 50 + 50 * 20 / 25 and found.interval.high == math.inf
    assert found.interval.low == 75.0


def test_evaluations_of_other_queries_are_refused() -> None:
    other = curve(10, 20) | {200: {(0, "c", "e"): 1.0}}
    with pytest.raises(EvaluationError, match=r"steps \[100, 200\] are not about the same queries"):
        steps_difference(other, other, 75)
