"""Several processes run the suite by files: a file's fixtures are made once, and long files come first."""

import os

import pytest

from tests.conftest import LONG, group_of


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests here")
@pytest.mark.parametrize("number", range(12))
def test_all_tests_of_a_file_run_in_one_process(number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    record = tmp_path_factory.getbasetemp().parent / "spread"
    worker = os.environ["PYTEST_XDIST_WORKER"]
    with record.open("a", encoding="utf-8") as file:
        file.write(f"{worker}\n")
    assert set(record.read_text(encoding="utf-8").split()) == {worker}


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests here")
def test_long_groups_come_first(request: pytest.FixtureRequest) -> None:
    markers = {name: number for number, name in enumerate(LONG)}
    places: dict[str, int] = {}
    for item in request.session.items:
        found = [markers[mark.name] for mark in item.iter_markers() if mark.name in markers]
        group = group_of(item.nodeid)
        places[group] = min([places.get(group, len(LONG)), *found])
    # A group of tests/slurm may hold tests alone that start none.
    order = [place for group, place in places.items() if not group.endswith("slurm")]
    assert order == sorted(order)


def test_the_tests_of_slurm_are_one_group() -> None:
    assert group_of("tests/slurm/test_submit.py::test_a[b::c]") == group_of("tests/slurm/test_other.py::test_b")
    assert group_of("tests/training/test_zero3.py::test_a[b::c]") == "tests/training/test_zero3.py"
