"""One queue for all that is read before it is needed: threads work on the next items while one is used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def read_ahead(
    function: Callable[[S], T],
    items: Iterable[S],
    threads: int,
    depth: int,
    name: str = "read-ahead",
    start_thread: Callable[[], None] | None = None,
) -> Generator[T, None, None]:
    """Yield ``function(item)`` in order; while the caller uses one, threads work on the next `depth`.

    What `function` raises is raised where its item is due. When the generator is closed, what is queued is
    dropped, and what is being worked on is waited for.

    Args:
        function: run on the threads.
        items: taken in this thread, no further ahead than `depth` and the one in use.
        threads: how many work at once; never changes what is yielded.
        depth: items finished or under way besides the one in use, at most.
        name: beginning of the threads' names.
        start_thread: called once on each thread.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=start_thread) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
