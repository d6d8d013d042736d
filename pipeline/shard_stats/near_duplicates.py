"""Pictures that look alike: pairs of perceptual hashes that differ in a few bits."""

import itertools
from dataclasses import dataclass

import numpy as np

BITS = 64
FEWEST = 8
"""Bits of either kind that a hash must have: of plain pictures it says nothing."""
CROWD = 1500
"""Hashes with one band in common that are still compared with each other; more say nothing either."""


@dataclass(frozen=True)
class Pairs:
    """Numbers of the pictures of each pair, and what was not compared."""

    left: np.ndarray
    right: np.ndarray
    """int64 (P,), left < right, ascending."""
    plain: int
    """Pictures without enough of either kind of bit."""
    crowds: int
    """Groups that were too large to compare; pairs within them are missing."""


def near_pairs(hashes: np.ndarray, distance: int) -> Pairs:
    """All pairs that differ in at most `distance` bits.

    Two such hashes are equal in at least one of ``distance + 1`` bands of bits, so only those are compared.

    Args:
        hashes: uint64 (N,).
        distance: bits.
    """
    ones = np.bitwise_count(hashes)
    telling = np.flatnonzero((ones >= FEWEST) & (ones <= BITS - FEWEST))
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    found: list[np.ndarray] = []
    crowds = 0
    for low, high in itertools.pairwise(edges.tolist()):
        mask = np.uint64(((1 << (high - low)) - 1) << low)
        band = hashes[telling] & mask
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for start, stop in itertools.pairwise([0, *cuts.tolist(), len(band)]):
            if stop - start < 2:
                continue
            if stop - start > CROWD:
                crowds += 1
                continue
            here = np.sort(telling[order[start:stop]])
            one, other = np.triu_indices(len(here), 1)
            close = np.bitwise_count(hashes[here[one]] ^ hashes[here[other]]) <= distance
            found.append(np.stack([here[one[close]], here[other[close]]], 1))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)
    return Pairs(pairs[:, 0], pairs[:, 1], len(hashes) - len(telling), crowds)
