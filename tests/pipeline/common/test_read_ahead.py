"""The read-ahead queue against plain `map`, and what it takes and leaves when it is not read to its end."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.read_ahead import read_ahead


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4), st.integers(0, 5))
def test_it_yields_what_map_does(items: list[int], threads: int, depth: int) -> None:
    assert list(read_ahead(lambda item: 3 * item, items, threads, depth)) == [3 * item for item in items]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_are_taken_no_further_ahead_than_asked(depth: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with closing(read_ahead(lambda item: item, items(), 2, depth)) as results:
        for used in range(5):
            assert next(results) == used
            assert len(taken) == used + 1 + depth


def test_an_error_is_raised_where_its_item_is_due() -> None:
    def half(number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    results = read_ahead(half, [4, 6, 7, 8], 2, 3)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ValueError, match="7 is odd"):
        next(results)


def test_a_closed_queue_is_dropped_and_its_threads_end() -> None:
    begun: list[int] = []
    started: list[str] = []
    first, go_on = threading.Event(), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            first.set()
            go_on.wait(60)
        return number

    results = read_ahead(
        work, range(10), 1, 4, "queue", lambda: started.append(threading.current_thread().name)
    )
    assert next(results) == 0
    assert first.wait(60)
    threading.Timer(0.1, go_on.set).start()
    results.close()  # 1 is under way; 2, 3 and 4 are queued
    assert begun == [0, 1]
    assert len(started) == 1 and started[0].startswith("queue")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("queue")]
