"""Questions to machines that may never answer."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises; `TimeoutError` when it takes longer, and is left to itself."""
    question = Question(call)
    question.wait(seconds)
    answer = question.answer()
    if answer is None:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answer[0]


class Question(Generic[T]):
    """A call that goes on beside the caller, on a thread that does not keep the process from ending."""

    def __init__(self, call: Callable[[], T]) -> None:
        """Ask."""
        self._answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._ask, args=(call,), daemon=True)
        self._thread.start()

    def _ask(self, call: Callable[[], T]) -> None:
        try:
            self._answers.put((call(), None))
        except BaseException as error:  # the asker's to judge
            self._answers.put((None, error))

    def wait(self, seconds: float) -> None:
        """Wait for the answer, but no longer."""
        self._thread.join(seconds)

    def answer(self) -> tuple[T] | None:
        """The answer, once, or None when there is none (yet). Raises what the call raised."""
        try:
            value, error = self._answers.get_nowait()
        except queue.Empty:
            return None
        if error is not None:
            raise error
        return (value,)  # type: ignore[return-value]  # without an error it is the call's
