"""Stages as processes of their own, several at a time, each with its share of the cores.

A child is its own process group, so that Ctrl-C in a terminal reaches it once, through this process: a second
signal would end a training before it has saved.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from pipeline.common.code import ROOT
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.threads import for_workers, users_environment

TAIL = 4096
"""Bytes of a log's end in which its last line is looked for."""
SHOWN = 200
"""Characters of it."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those that ask this process to stop."""


class Stopped(Exception):  # noqa: N818 - named for what it says
    """A child was ended, or not begun, because this process was asked to stop."""


class Children(AbstractContextManager["Children"]):
    """The processes that run now. As a context it hands signals to stop on to them, each as SIGTERM."""

    def __init__(self) -> None:
        self.signal = 0
        """The signal that came, or 0."""
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()  # the handler may interrupt whoever holds it in this very thread

    def __enter__(self) -> "Children":
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def _note(self, number: int, _frame: Any) -> None:
        self.signal = number
        self.stop()

    def stop(self) -> None:
        """Ask all to stop, and begin no more."""
        with self._lock:
            self.signal = self.signal or signal.SIGTERM
            for child in self._running:
                child.terminate()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, name: str, words: Sequence[str], at_once: int, log: Path | None = None) -> None:
        """Run ``python -m WORDS`` to its end, one of `at_once` processes that divide the cores.

        Args:
            name: for messages.
            words: module and arguments.
            at_once: processes that run side by side.
            log: file that gets what it prints, after what is there; None: this process's stderr.

        Raises:
            UserError, RunFailed: by the child's exit code; the message names the log and its last line.
            Stopped: it was ended, or not begun.
        """
        users = users_environment()
        found = [str(ROOT), *filter(None, [users.get("PYTHONPATH")])]
        environment = users | for_workers(at_once, users) | {"PYTHONPATH": os.pathsep.join(found)}
        if log is None:
            code = self._run(words, environment, None)
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                code = self._run(words, environment, file)
        if self.signal:
            raise Stopped
        if code:
            where = f"; {log}: {last_line(log)}" if log else ""
            kind = UserError if code == 2 else RunFailed
            raise kind(f"{name} ended with exit code {code}{where}")

    def _run(self, words: Sequence[str], environment: dict[str, str], out: IO[bytes] | None) -> int:
        with self._lock:
            if self.signal:
                raise Stopped
            child = subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours
                [sys.executable, "-m", "stages._child", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out or sys.__stderr__,
                stderr=out or sys.__stderr__,
                start_new_session=True,
            )
            self._running.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._running.discard(child)


def last_line(log: Path) -> str:
    """The last line of a log that says something; "" without one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:SHOWN] for line in reversed(lines) if line.strip()), "")
