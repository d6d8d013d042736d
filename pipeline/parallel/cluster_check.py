"""Whether the workers of a cluster that is not ours are fit for a run, before it begins."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from pipeline.common.errors import UserError
from pipeline.parallel.patience import within
from pipeline.parallel.worker import Ticket

POLL = 1.0
"""Seconds between two looks at workers that are still busy."""


def check_workers(
    client: Any, ticket: Ticket, address: str, timeout: float, silence: float, step: str
) -> None:
    """Wait for workers and ask each whether it is fit.

    Args:
        client: of the cluster at `address`.
        ticket: the run that they are to join.
        address: of the scheduler, for messages.
        timeout: seconds to wait for a first worker.
        silence: seconds that the workers have for an answer.
        step: name shown with the messages.

    Raises:
        UserError: no worker came, one does not answer, or everyone's objections.
    """
    if not client.nthreads():
        print(f"{step}: waiting for a first worker", file=sys.stderr)
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise UserError(
            f"the cluster at {address} has had no worker for {timeout:g} s; start "
            "some (docs/cluster.md), or raise parallel.worker_timeout"
        ) from None

    def version() -> str:
        return ".".join(str(part) for part in sys.version_info[:2])

    def ask(fields: dict[str, Any]) -> str | None:
        # a nested function is pickled by value, so it also runs where our package cannot be imported
        try:
            from pipeline.parallel.worker import Ticket

            return Ticket(**fields).objection()
        except Exception as error:
            return f"cannot use this repository's `pipeline` package ({type(error).__name__}: {error})"

    problems = {
        name: f"runs Python {theirs}, and this is {version()}"
        for name, theirs in _ask_all(client, version, address, silence).items()
        if theirs != version()
    }
    if not problems:
        answers = _ask_all(client, functools.partial(ask, dataclasses.asdict(ticket)), address, silence)
        problems = {name: answer for name, answer in answers.items() if answer}
    if problems:
        raise UserError(
            f"{len(problems)} worker(s) of the cluster at {address} cannot be used:\n"
            + "\n".join(f"  {name} {problem}" for name, problem in sorted(problems.items()))
        )
    while any(_ask_all(client, ticket.progress, address, silence).values()):
        print(f"{step}: waiting for workers that are still at a shard of a run that ended", file=sys.stderr)
        time.sleep(POLL)


def _ask_all(client: Any, question: Callable[[], Any], address: str, silence: float) -> dict[str, Any]:
    """Every worker's answer. Raises `UserError` where one gives none in time."""
    try:
        answers: dict[str, Any] = within(silence, lambda: client.run(question, on_error="ignore"))
    except TimeoutError:
        heard = within(silence, lambda: client.scheduler_info(n_workers=-1))["workers"]
        longest = min(heard, key=lambda worker: heard[worker]["last_seen"])
        raise UserError(
            f"not every worker of the cluster at {address} answers within {silence:g} s; {longest} has been "
            "silent for longest: stop it, or raise parallel.worker_silence"
        ) from None
    return answers
