"""Two ways of doing the same work, and how they take turns."""

import itertools
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Differ(Exception):  # noqa: N818 - named for what it says
    """The two sides give different results: how fast they are does not matter then."""


@dataclass(frozen=True)
class Job:
    """What a row is asked to prepare."""

    folder: Path
    """Empty, for its files."""
    device: str
    """Torch device of both sides."""
    tokenizer: Path
    """GPT-2's, or the built-in one: a folder."""
    tiny: bool = False
    """Sizes that a test can pay for, instead of the paper's."""


@dataclass(frozen=True)
class Pair:
    """Both sides of a row, ready to run any number of times."""

    work: str
    """What one turn is, for people."""
    unit: str
    """What is counted: pictures, crops ..."""
    items: int
    """So many of them in a turn."""
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    check: Callable[[], str]
    """Runs both once; in words how closely their results agree. Raises `Differ`."""


class Spent(NamedTuple):
    """Seconds of one side's turn."""

    wall: float
    cpu: float
    """Of this process and its children."""


class Turn(NamedTuple):
    """Both sides, one right after the other."""

    ours: Spent
    theirs: Spent


def turns(pair: Pair) -> Iterator[Turn]:
    """Time both sides again and again; who goes first alternates."""
    for number in itertools.count():
        if number % 2:
            theirs = _spent(pair.theirs)
            yield Turn(_spent(pair.ours), theirs)
        else:
            ours = _spent(pair.ours)
            yield Turn(ours, _spent(pair.theirs))


def _spent(side: Callable[[], Any]) -> Spent:
    cpu, start = cpu_seconds(), time.perf_counter()
    result = side()
    spent = Spent(time.perf_counter() - start, cpu_seconds() - cpu)
    del result  # letting go of it is not part of the next turn
    return spent


def cpu_seconds() -> float:
    """User and system seconds of this process, of its children that have ended, and of those at work."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in ended)
    for child in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # no such file system, or it has just ended
            continue
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def close(ours: Any, theirs: Any, tolerance: float, what: str) -> str:
    """In words, the largest difference of two arrays, as a share of the largest value.

    Raises `Differ` for other shapes, values that are not finite, or a difference above `tolerance`.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise Differ(f"{what}: ours have the shape {ours.shape}, theirs {theirs.shape}")
    if not ours.size:
        raise Differ(f"{what}: neither side has any")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise Differ(f"{what}: some are not finite")
    share = float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-12))
    if share > tolerance:
        raise Differ(f"{what} differ by up to {share:.2g} of the largest; {tolerance:g} would be float noise")
    return f"{what} within {share:.1g} of the largest"


def same_directions(ours: Any, theirs: Any, least: float) -> str:
    """In words, the smallest cosine between rows (N, D). Raises `Differ` below `least`."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not len(ours):
        raise Differ(f"ours are {ours.shape} embeddings, theirs {theirs.shape}")
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    smallest = float(((ours * theirs).sum(1) / lengths).min())
    if not smallest >= least:
        raise Differ(f"embeddings differ: the smallest cosine is {smallest:.5f}, {least} were expected")
    return f"embeddings with cosines of {smallest:.5f} or more"
