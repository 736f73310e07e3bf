"""Records reach their place in order, each once, however slow or absent the place is for a while."""

import threading
import time

from glus.training.tracking.delivery import Delivery


def test_records_arrive_in_order_and_close_waits_for_them() -> None:
    arrived: list[int] = []

    def slow_send(batch: list[int]) -> None:
        time.sleep(0.01)
        arrived.extend(batch)

    delivery: Delivery[int] = Delivery(slow_send, batch_size=10)
    for number in range(100):
        delivery.put([number])
    left = delivery.close()
    assert left.count == 0 and left.error is None
    assert arrived == list(range(100))


def test_putting_never_waits_for_a_place_that_hangs() -> None:
    release = threading.Event()
    delivery: Delivery[int] = Delivery(
        lambda batch: [None for _ in batch if not release.wait(5)] and None, interval_s=0
    )
    start = time.perf_counter()
    for number in range(1000):
        delivery.put([number])
    assert time.perf_counter() - start < 0.5
    release.set()
    assert delivery.close().count == 0


def test_a_batch_that_failed_is_sent_again() -> None:
    arrived: list[int] = []
    failures = iter([ConnectionError("away"), None])

    def send(batch: list[int]) -> None:
        error = next(failures, None)
        if error is not None:
            raise error
        arrived.extend(batch)

    delivery: Delivery[int] = Delivery(send, interval_s=0)
    delivery.put([1, 2, 3])
    time.sleep(0.05)
    left = delivery.close()
    assert arrived == [1, 2, 3]
    assert left.count == 0 and left.error is None


def test_what_could_not_be_delivered_is_counted_with_its_cause() -> None:
    def send(batch: list[int]) -> None:
        raise ConnectionError("still away")

    delivery: Delivery[int] = Delivery(send, interval_s=0)
    delivery.put([1, 2, 3])
    left = delivery.close()
    assert left.count == 3
    assert str(left.error) == "still away"


def test_records_beyond_the_capacity_are_counted_not_forgotten() -> None:
    entered, release = threading.Event(), threading.Event()
    arrived: list[int] = []

    def send(batch: list[int]) -> None:
        entered.set()
        release.wait(5)
        arrived.extend(batch)

    delivery: Delivery[int] = Delivery(send, capacity=5, interval_s=0)
    delivery.put(range(5))
    entered.wait(5)
    delivery.put(range(5, 12))
    release.set()
    left = delivery.close()
    assert arrived == [0, 1, 2, 3, 4]
    assert left.count == 7
