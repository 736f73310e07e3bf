"""Reading ahead and writing behind: what is held, which errors are raised where, and what an interruption leaves."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glus.common.errors import DataError
from glus.evaluation.predict.background import AHEAD, WAITING, WRITERS, ReadAhead, WriteBehind

FRAMES = 9


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith(("read-ahead", "write-behind"))]
    assert not ours


class Reader:
    """Gives the index itself, and knows which frames were read, and in which threads."""

    def __init__(self, damaged: int | None = None) -> None:
        self.read: list[int] = []
        self.threads: set[str] = set()
        self._damaged = damaged
        self._came = threading.Condition()

    def __call__(self, index: int) -> int:
        with self._came:
            self.read.append(index)
            self.threads.add(threading.current_thread().name)
            self._came.notify_all()
        if index == self._damaged:
            raise DataError(f"frame {index} cannot be decoded")
        return index

    def wait_for(self, index: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: index in self.read, timeout=60), f"frame {index} was not read"


@pytest.mark.parametrize("order", [range(FRAMES), range(FRAMES - 1, -1, -1)], ids=["forward", "backward"])
def test_frames_asked_for_in_a_row_are_read_before_they_are_asked_for(order):
    reader, asked = Reader(), list(order)
    with ReadAhead(reader, FRAMES) as ahead:
        for place, index in enumerate(asked):
            assert ahead(index) == index
            if place > 1:
                for next_one in asked[place + 1 : place + 1 + AHEAD]:
                    reader.wait_for(next_one)
                assert set(reader.read) <= set(asked[: place + 1 + AHEAD])
    assert reader.read == asked and len(reader.threads) == 1


@pytest.mark.parametrize("context", [[1, 3, 5, 7], [3, 5], [4]])
def test_neither_context_frames_nor_the_turn_at_the_end_have_a_frame_read_for_nothing(context):
    asked, reader = [*context, 4, 5, 6, 7, 8, 3, 2, 1, 0], Reader()
    with ReadAhead(reader, FRAMES) as ahead:
        assert [ahead(index) for index in asked] == asked
    assert reader.read == asked


def test_frames_that_are_not_asked_for_after_all_are_dropped():
    reader = Reader()
    with ReadAhead(reader, FRAMES) as ahead:
        asked = [0, 1, 2, 8, 7, 3, 2]
        assert [ahead(index) for index in asked] == asked
    assert len(reader.read) <= len(asked) + AHEAD


def test_a_frame_that_cannot_be_read_raises_where_it_is_asked_for_and_not_before():
    reader = Reader(damaged=4)
    with ReadAhead(reader, FRAMES) as ahead:
        assert [ahead(index) for index in range(3)] == [0, 1, 2]
        reader.wait_for(4)
        assert ahead(3) == 3
        with pytest.raises(DataError, match="frame 4 cannot be decoded"):
            ahead(4)
        assert ahead(5) == 5


def test_a_writer_that_does_not_keep_up_is_waited_for():
    go_on, begun = threading.Event(), threading.Semaphore(0)
    written: list[int] = []
    submitted = 0

    def write(number: int) -> None:
        begun.release()
        assert go_on.wait(60)
        written.append(number)

    def fill() -> None:
        nonlocal submitted
        with WriteBehind() as behind:
            for number in range(3 * WAITING):
                submitted = number
                behind.call(write, number)

    filling = threading.Thread(target=fill)
    filling.start()
    for _ in range(WRITERS):
        assert begun.acquire(timeout=60)
    filling.join(0.5)
    assert filling.is_alive() and submitted <= WAITING
    go_on.set()
    filling.join(60)
    assert sorted(written) == list(range(3 * WAITING))


@pytest.mark.parametrize("failing", [0, 40, 99], ids=["first", "in the middle", "last"])
def test_the_error_of_a_write_is_raised_in_the_block_or_at_its_end(tmp_path, failing):
    def write(number: int) -> None:
        if number == failing:
            raise OSError(28, "No space left on device", str(tmp_path))

    with pytest.raises(OSError, match="No space left") as raised, WriteBehind() as behind:
        for number in range(100):
            behind.call(write, number)
    assert raised.value.filename == str(tmp_path)


def test_after_an_interruption_nothing_is_written_any_more(tmp_path):
    """So the folder can be removed, as those who write masks do."""
    begun = threading.Event()

    def write(place: Path) -> None:
        begun.set()
        place.write_bytes(np.zeros(1000, np.uint8).tobytes())

    with pytest.raises(KeyboardInterrupt), WriteBehind() as behind:
        for number in range(WAITING):
            behind.call(write, tmp_path / f"{number}.png")
        assert begun.wait(60)
        raise KeyboardInterrupt
    written = {place.name: place.stat().st_size for place in tmp_path.iterdir()}
    assert written and set(written.values()) == {1000}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write-behind")]
