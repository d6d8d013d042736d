"""How fast the APOLO protocol is on this machine: as many items as APOLO's, maps and labels in memory.

Made-up blobs at the sizes of real paintings; a few dozen of them in turn, because all would fill the memory
and measure it. Reading files is not in it.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from model.metrics.segmentation import scaled, score_maps
from model.metrics.thresholds import grid, sweep_ious
from model.score.params import ScoreParams
from pipeline.common.params import ParamsFile, load_params
from pipeline.common.progress import waiting
from pipeline.common.threads import cores

TEST_ITEMS = 5441
VAL_ITEMS = 1340
SIZES = ((514, 928), (1014, 1280), (320, 512), (1528, 1200), (690, 1000), (1052, 1600), (384, 512))
"""Height and width of seven paintings as WikiArt has them."""
VARIETY = 8 * len(SIZES)
"""Different labels, and maps of each kind."""
SPECKLED_ITEMS = 200
"""Maps of noise at the label's size are measured on fewer items: nobody has 5,441 of them."""


def run(params_file: ParamsFile) -> dict[str, Any]:
    """Seconds for APOLO's test items by kind of map, and for the sweep over thresholds on its val items."""
    params = load_params(params_file, "score", ScoreParams)
    rng = np.random.default_rng(0)
    labels = [blobs(rng, *SIZES[number % len(SIZES)]) > 0.6 for number in range(VARIETY)]
    kinds: dict[str, list[np.ndarray]] = {
        "7x7": [rng.random((7, 7)) for _ in labels],
        "side_256": [blobs(rng, *_fitted(label.shape, 256)).astype(np.float16) for label in labels],
        "of_the_label": [blobs(rng, *label.shape) for label in labels],
        "noise": [rng.random(label.shape, dtype=np.float32) for label in labels],
    }
    counts = {name: SPECKLED_ITEMS if name == "noise" else TEST_ITEMS for name in kinds}
    scored = {}
    for name, maps in kinds.items():
        with waiting("bench score", f"scoring {counts[name]:,} maps of kind {name}"):
            scored[name] = _timed(maps, labels, params, counts[name])
    with waiting("bench score", f"{VAL_ITEMS:,} maps at every threshold"):
        swept = _swept(kinds["side_256"], labels, params, VAL_ITEMS)
    return {
        "workers": cores(),
        "megapixels_per_label": round(sum(label.size for label in labels) / len(labels) / 1e6, 2),
        "score": scored,
        "sweep": swept,
    }


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth blobs in [0, 1], float32 (height, width)."""
    coarse = rng.random((9, 9), dtype=np.float32)
    values: np.ndarray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(values, 0, 1)


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    height, width = shape
    return round(height * side / max(shape)), round(width * side / max(shape))


def _first(values: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
    return itertools.islice(itertools.cycle(values), count)


def _timed(
    maps: list[np.ndarray], labels: list[np.ndarray], params: ScoreParams, count: int
) -> dict[str, float]:
    start = time.perf_counter()
    scores = score_maps(
        _first(maps, count),
        _first(labels, count),
        threshold=params.threshold,
        box_truth=params.box_truth,
        boxes=params.boxes,
        scaling=params.scaling,
    )
    return _rate(len(scores.iou_seg), time.perf_counter() - start)


def _swept(
    maps: list[np.ndarray], labels: list[np.ndarray], params: ScoreParams, count: int
) -> dict[str, float]:
    """On one core; step `score` spreads items over all."""
    thresholds = grid(params.sweep)
    start = time.perf_counter()
    for map_, label in zip(_first(maps, count), _first(labels, count), strict=True):
        height, width = label.shape
        sweep_ious(scaled(map_, height, width, params.scaling), label, thresholds)
    return _rate(count, time.perf_counter() - start)


def _rate(items: int, seconds: float) -> dict[str, float]:
    return {"items": items, "seconds": round(seconds, 2), "items_per_second": round(items / seconds, 1)}
