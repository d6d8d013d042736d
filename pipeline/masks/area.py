"""Averages over the pixels of another size, along one side of a picture that is cut into cells."""

from typing import NamedTuple

import cv2
import numpy as np

BLOCK = 32
"""Pixels averaged at a time: they touch few cells, and the product over all cells is mostly zeros."""


class Side(NamedTuple):
    """The pixels of one side, each different one once."""

    blocks: list[tuple[slice, slice, np.ndarray]]
    """Of each block: which distinct pixels, which cells they touch, and the share of each pixel that lies in
    each cell, float64 (pixels, cells)."""
    which: np.ndarray
    """int64 (count,): for every pixel its distinct one, ascending."""


def distinct(edges: np.ndarray, count: int) -> Side:
    """`count` equal pixels over the cells between `edges` (int64, ascending from 0).

    Pixels side by side within one cell are alike; those that an edge passes through stand alone.
    """
    before, beyond = np.divmod(edges[:-1] * count, edges[-1])
    new = np.zeros(count + 1, np.bool_)
    new[before] = True
    new[before + (beyond > 0)] = True
    new = new[:count]
    starts, bound = new.nonzero()[0], edges[-1] / count
    begins, ends = starts * bound, (starts + 1) * bound
    shares = _shares(edges, begins, ends, 1 / bound)
    first = edges[1:].searchsorted(begins[::BLOCK], "right").tolist()
    last = edges.searchsorted(ends[[*range(BLOCK - 1, len(ends) - 1, BLOCK), -1]], "left").tolist()
    blocks = []
    for at, (low, high) in enumerate(zip(first, last, strict=True)):
        pixels, cells = slice(at * BLOCK, (at + 1) * BLOCK), slice(low, high)
        blocks.append((pixels, cells, shares[pixels, cells]))
    return Side(blocks, new.cumsum() - 1)


def overlaps(edges: np.ndarray, count: int) -> np.ndarray:
    """float64 (count, cells): the share of each of `count` equal pixels that lies in each cell."""
    bounds = np.arange(count + 1) * (edges[-1] / count)
    return _shares(edges, bounds[:-1], bounds[1:], count / edges[-1])


def _shares(edges: np.ndarray, begins: np.ndarray, ends: np.ndarray, scale: float) -> np.ndarray:
    shares = np.minimum(ends[:, None], edges[1:])
    shares -= np.maximum(begins[:, None], edges[:-1])
    np.maximum(shares, 0.0, out=shares)
    shares *= scale
    return shares


def averages(values: np.ndarray, rows: Side, columns: Side) -> np.ndarray:
    """Averages of maps of cells (E, R, C) over the distinct pixels of two sides, float64 (E, D, F)."""
    count, _, across = values.shape
    tall = np.empty((count, int(rows.which[-1]) + 1, across))
    for pixels, cells, shares in rows.blocks:
        np.matmul(shares, values[:, cells], out=tall[:, pixels])
    lines = tall.reshape(-1, across)
    found = np.empty((len(lines), int(columns.which[-1]) + 1))
    for pixels, cells, shares in columns.blocks:
        np.matmul(lines[:, cells], shares.T, out=found[:, pixels])
    return found.reshape(count, tall.shape[1], found.shape[1])


def spread(values: np.ndarray, rows: Side, columns: Side) -> np.ndarray:
    """uint8 maps (E, D, F) of distinct pixels as maps of all pixels, (E, height, width)."""
    # columns as rows of the transpose: copied whole, five times as fast
    wide = cv2.transpose(cv2.transpose(values.reshape(-1, values.shape[2]))[columns.which])
    return np.asarray(wide).reshape(*values.shape[:2], -1)[:, rows.which]


def between(starts: np.ndarray, ends: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges (int64, ascending) of 0, `size` and all ranges, and the ranges in numbers of those edges.

    As `np.unique` and `np.searchsorted` give them; `starts` and `ends` are pixels from 0 to `size`.
    """
    is_edge = np.zeros(size + 1, np.bool_)
    is_edge[[0, size]] = True
    is_edge[starts] = True
    is_edge[ends] = True
    edges = is_edge.nonzero()[0]
    number = np.empty(size + 1, np.int64)
    number[edges] = np.arange(len(edges))
    return edges, number[starts], number[ends]
