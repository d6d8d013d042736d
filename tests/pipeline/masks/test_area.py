"""Averages over distinct pixels against one average for every pixel, summed overlap by overlap."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.masks import area
from pipeline.masks.raster import Grid


def exact_share(edges: np.ndarray, count: int, pixel: int, cell: int) -> Fraction:
    size = Fraction(int(edges[-1]), count)
    low = max(pixel * size, Fraction(int(edges[cell])))
    high = min((pixel + 1) * size, Fraction(int(edges[cell + 1])))
    return max(Fraction(0), high - low) / size


def exact_average(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: Any) -> np.ndarray:
    """float64 (E, height, width), one by one; `values` of whole numbers."""
    down, across = (
        np.array([[exact_share(e, n, p, c) for c in range(len(e) - 1)] for p in range(n)], object)
        for e, n in zip((rows, columns), size, strict=True)
    )
    return np.array([(down @ v.astype(int).astype(object)) @ across.T for v in values])


@st.composite
def sides(draw: Any) -> tuple[np.ndarray, int]:
    size = draw(st.integers(1, 60))
    cuts = draw(st.lists(st.integers(0, size), max_size=8))
    return np.unique([0, size, *cuts]), draw(st.integers(1, 40))


@settings(max_examples=60)
@given(sides(), sides(), st.integers(0, 2**32))
def test_whole_parts_are_those_of_exact_averages(down: Any, across: Any, seed: int) -> None:
    (rows, height), (columns, width) = down, across
    values = np.random.default_rng(seed).integers(0, 256, (2, len(rows) - 1, len(columns) - 1)).astype(float)
    exact = exact_average(values, rows, columns, (height, width))
    found = Grid(values, rows, columns).whole_part(height, width)
    assert found.dtype == np.uint8 and found.shape == (2, height, width)
    fraction = np.array(exact % 1, float)
    clear = (fraction > 1e-9) & (fraction < 1 - 1e-9)  # elsewhere the last digit of a float decides
    np.testing.assert_array_equal(found[clear], np.floor(np.array(exact, float)).astype(np.uint8)[clear])
    assert np.abs(found - exact).max() < 1 + 1e-9


@pytest.mark.parametrize("size", [(256, 256), (256, 171), (32, 32)])
def test_near_whole_numbers_every_pixel_is_averaged_as_before(size: tuple[int, int]) -> None:
    """Half covered pixels of maps of two levels are whole numbers: what the dense product makes of them."""
    rows, columns = np.array([0, 101, 303, 512]), np.array([0, 77, 200, 513])
    values = np.full((1, 3, 3), 0.5)
    values[0, 1, 1] = 255.5
    values[0, 2, 2] = 128.0
    grid = Grid(values, rows, columns)
    dense = area.overlaps(rows, size[0]) @ values @ area.overlaps(columns, size[1]).T
    np.testing.assert_array_equal(grid.whole_part(*size), dense.astype(np.uint8))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=9), st.integers(90, 99))
def test_ranges_are_numbered_as_by_unique_and_searchsorted(ranges: list[tuple[int, int]], size: int) -> None:
    starts, ends = np.array(ranges, np.int64).reshape(-1, 2).T
    edges, first, last = area.between(starts, ends, size)
    np.testing.assert_array_equal(edges, np.unique([0, size, *starts, *ends]))
    np.testing.assert_array_equal(edges[first], starts)
    np.testing.assert_array_equal(edges[last], ends)
