"""The process of one part: ``python -m model.bench.gpu_parts.worker JOB.json``. `model.bench.gpu` starts it.

What a part finds is written line by line, so that whatever ends it (its time, the memory, a hanging kernel)
costs only what it had not measured yet.
"""

import dataclasses
import gc
import importlib
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRACE = 15.0
"""Seconds beyond its limit after which a part ends itself: whoever started it may be gone."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a part is to do."""

    function: str
    """``module:function``: takes this and the `Rows` to fill."""
    device: str
    """A torch device."""
    tiny: bool
    """Sizes that a processor can bear: for seeing whether every part runs, not for its numbers."""
    folder: Path
    """Of the whole run: what one part writes for the others lies there; see also `own`."""
    results: Path
    """File that the part appends its rows to."""
    tokenizer: Path
    """Folder of a GPT-2's tokenizer."""
    limit: float
    """Seconds that the part has."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        values = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(self).items()}
        path.write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Job":
        """Read what `save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        paths = {name: Path(values[name]) for name in ("folder", "results", "tokenizer")}
        return cls(**{**values, **paths})

    @property
    def own(self) -> Path:
        """Folder for what only this part reads, such as weights; gone after it."""
        return self.folder / self.results.stem

    def size(self, full: int, tiny: int) -> int:
        """A number of things by the size of the run."""
        return tiny if self.tiny else full


class Rows:
    """Rows of a part, appended to a file as they come: ``{"row": NAME, "values": {...}}`` a line."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, name: str, values: dict[str, Any]) -> None:
        """Keep a row; one that holds a NaN or an infinity keeps it as text, for JSON knows neither."""
        line = json.dumps({"row": name, "values": _plain(values)}, allow_nan=False)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def measure(self, name: str, call: Callable[[], dict[str, Any]]) -> None:
        """Keep what `call` returns, or why it could not: the other rows are measured all the same."""
        try:
            values = call()
        except Exception as error:  # out of memory, a kernel that is missing, a bug: the row says which
            traceback.print_exc()
            values = {"problem": problem(error)}
        _release()
        self.add(name, values)


def problem(error: BaseException) -> str:
    """An exception as one line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _release() -> None:
    """Give the memory of a row back before the next: a failed one's frames held it until here."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def main() -> None:
    """Run one part; exit code 1 with a last row ``""`` when the part itself broke."""
    job = Job.load(Path(sys.argv[1]))
    signal.setitimer(signal.ITIMER_REAL, job.limit + GRACE)  # SIGALRM ends the process
    module, _, function = job.function.partition(":")
    rows = Rows(job.results)
    try:
        part = getattr(importlib.import_module(module), function)
        part(job, rows)
    except Exception as error:
        traceback.print_exc()
        rows.add("", {"problem": problem(error)})
        sys.stderr.flush()
        os._exit(1)  # a broken CUDA context may hang in its destructors
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
