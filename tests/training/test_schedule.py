"""The learning rate: up over the warm-up, down to nothing at the end."""

import pytest

from glus.training.schedule import learning_rate


def test_it_rises_in_equal_parts_and_falls_in_equal_parts() -> None:
    rates = [learning_rate(step, 10, 1.0, 4) for step in range(10)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:] == pytest.approx([1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, 10, 3e-4, 0) == 3e-4


def test_it_is_nothing_at_the_end_and_after_it() -> None:
    assert [learning_rate(step, 10, 1.0, 2) for step in (10, 11, 1000)] == [0.0, 0.0, 0.0]


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    assert learning_rate(2, 3, 1.0, 100) == pytest.approx(3 / 101)
