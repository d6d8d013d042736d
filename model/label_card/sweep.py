"""Every recipe for pseudo-masks at once, judged on APOLO's val items: the sweep behind the label card.

A recipe turns an artwork's regions and similarities into masks (`pipeline.masks`). Recipes that share support
and aggregation are rasterised together; a map of 256 levels is swept over all thresholds by two histograms
of its levels. Pixels are counted in the masks' own frame (long side 256), to which labels are brought.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from model.metrics.segmentation import Truth
from model.metrics.thresholds import Sweep, grid
from model.score.params import ScoreParams
from model.score.score_masks import in_threads, read_truth
from pipeline.common.errors import UserError
from pipeline.common.geometry import frame_size
from pipeline.common.params import STRICT, Paths
from pipeline.common.schema import REGIONS
from pipeline.common.tables import table_file, whole_shard_file
from pipeline.masks import raster
from pipeline.masks.raster import Aggregate
from pipeline.masks.recipe import MasksParams, region_runs, weigh
from pipeline.releases.apolo import ApoloItem

Support = Literal["box", "sam"]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class LabelCardParams:
    """What is swept, see `MasksParams`: every combination that differs, and the params' own recipe."""

    supports: Annotated[tuple[Support, ...], Field(min_length=1)] = ("box", "sam")
    """sam is left out of folders whose regions have no masks."""
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1)] = ("sum", "mean", "max")
    negatives: Annotated[tuple[Literal["clip", "keep"], ...], Field(min_length=1)] = ("clip", "keep")
    center: Annotated[tuple[bool, ...], Field(min_length=1)] = (False, True)
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        *(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    )
    relatives: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] = (0.0, 0.4)
    finalists: Annotated[int, Field(gt=0)] = 3
    """Recipes of the sweep that are scored again at the labels' own size."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """One artwork's pseudo-masks before any recipe."""

    height: int
    width: int
    """Of the picture, pixels."""
    boxes: np.ndarray
    """float32 (N, 4) xyxy, pixels."""
    masks: Sequence[str | None] | None
    """The regions' own masks (`rle`), where the table has them."""
    scores: Mapping[str, np.ndarray]
    """Emotion -> cosines float64 (N,)."""


@dataclasses.dataclass(frozen=True)
class RecipeSource:
    """One folder of data: regions by some detector, similarities by some CLIP."""

    data: Path
    artworks: Mapping[str, Factors]
    lineage: Mapping[str, Any]

    @property
    def has_masks(self) -> bool:
        """Whether any region has a mask of its own."""
        return any(any(text is not None for text in work.masks or ()) for work in self.artworks.values())

    def find(self, item: ApoloItem) -> tuple[Factors, np.ndarray] | None:
        """An item's artwork and cosines (E, N), its emotion's first; None where this folder has none."""
        work = self.artworks.get(item.key)
        if work is None or item.emotion not in work.scores:
            return None
        others = (scores for emotion, scores in work.scores.items() if emotion != item.emotion)
        return work, np.stack([work.scores[item.emotion], *others])


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A recipe over a source, and its sweep on the val items in the masks' frame."""

    source: int
    recipe: MasksParams
    sweep: Sweep

    def rank(self, fixed: float) -> tuple[float, float]:
        """Smaller is better: by mean IoU at the best threshold, then at the fixed one."""
        means = self.sweep.mean_iou
        return -float(means.max()), -float(means[np.abs(self.sweep.thresholds - fixed).argmin()])


def recipes(current: MasksParams, params: LabelCardParams, with_masks: bool) -> list[MasksParams]:
    """Every recipe to try once, the current one among them.

    Where a temperature makes weights positive, negatives and centring change nothing and are not varied.
    """
    supports = [support for support in params.supports if with_masks or support == "box"]
    weighings: list[tuple[Literal["clip", "keep"], bool, float]] = []
    for temperature in dict.fromkeys(params.temperatures):
        if temperature > 0:
            weighings.append(("clip", False, temperature))
        else:
            weighings += [
                (negatives, center, 0.0) for negatives in params.negatives for center in params.center
            ]
    relatives = dict.fromkeys(params.relatives)
    found = [
        MasksParams(
            support=support,
            aggregate=aggregate,
            negatives=negatives,
            center=center,
            temperature=temperature,
            relative=relative,
            long_side=current.long_side,
        )
        for support, aggregate, (negatives, center, temperature), relative in itertools.product(
            supports, params.aggregates, weighings, relatives
        )
    ]
    usable = with_masks or current.support == "box"
    own = [MasksParams(**current.recipe())] if usable else []  # without what people made of its masks
    return list(dict.fromkeys([*found, *own]))


def read_source(paths: Paths, keys: set[str]) -> RecipeSource:
    """Regions and similarities of some artworks. Raises `UserError` when a step's files are absent."""
    try:
        table = table_file(paths, "artworks")
    except UserError as error:
        raise UserError(f"{error}, or name another --data folder") from None
    wanted = [("key", "in", sorted(keys))]
    works = {
        row["key"]: row
        for row in pq.read_table(
            table, columns=["key", "shard", "height", "width"], filters=wanted
        ).to_pylist()
    }
    artworks: dict[str, Factors] = {}
    detectors: set[str] = set()
    lineages: set[str] = set()
    for shard in sorted({row["shard"] for row in works.values()}):
        similar: dict[str, dict[str, np.ndarray]] = {}
        file = whole_shard_file(paths, "similarity", shard)
        for row in pq.read_table(file, columns=["key", "emotion", "scores"], filters=wanted).to_pylist():
            similar.setdefault(row["key"], {})[row["emotion"]] = np.array(row["scores"], np.float64)
        lineages.add((pq.read_schema(file).metadata or {}).get(b"lineage", b"{}").decode())
        regions = pq.read_table(
            whole_shard_file(paths, "regions", shard),
            schema=REGIONS,
            columns=["key", "boxes", "masks", "source"],
            filters=wanted,
        )
        for row in regions.to_pylist():
            boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
            fitting = {e: s for e, s in similar.get(row["key"], {}).items() if len(s) == len(boxes)}
            work = works[row["key"]]
            artworks[row["key"]] = Factors(work["height"], work["width"], boxes, row["masks"], fitting)
            detectors.add(row["source"])
    lineage = {"detector": sorted(detectors), "similarity": [json.loads(text) for text in sorted(lineages)]}
    return RecipeSource(paths.data, artworks, lineage)


def sweep_recipes(
    place: int,
    source: RecipeSource,
    val: Sequence[ApoloItem],
    tried: Sequence[MasksParams],
    score: ScoreParams,
) -> list[Candidate]:
    """Every recipe over one source at every threshold; an item that the source has nothing for is IoU 0.

    Empty where no val item has a usable label.
    """
    thresholds = grid(score.sweep)
    groups: dict[tuple[str, Aggregate, float | None], list[MasksParams]] = {}
    for recipe in tried:
        groups.setdefault((recipe.support, recipe.aggregate, recipe.level), []).append(recipe)
    ordered = [recipe for group in groups.values() for recipe in group]

    def judge(item: ApoloItem) -> np.ndarray | None:
        truth = read_truth(item, score)
        if isinstance(truth, str):
            return None
        found = source.find(item)
        if found is None:
            return np.zeros((len(ordered), len(thresholds)))
        work, cosines = found
        size = frame_size(work.height, work.width, ordered[0].long_side)
        small = _in_frame(truth, *size)
        curves = []
        for (support, aggregate, level), group in groups.items():
            weights = np.concatenate([weigh(cosines, recipe)[:1] for recipe in group])
            maps = _maps(work, weights, support, aggregate)
            curves += [level_ious(map_, small, thresholds) for map_ in raster.levels(maps, *size, level)]
        return np.stack(curves)

    found = in_threads(judge, val, f"label-card: recipes of {source.data}")
    judged = [curves for curves in found if curves is not None]
    if not judged:
        return []
    ious = np.stack(judged, axis=1)  # (recipes, items, thresholds)
    return [Candidate(place, recipe, Sweep(thresholds, ious[i])) for i, recipe in enumerate(ordered)]


def _maps(
    work: Factors, weights: np.ndarray, support: str, aggregate: Aggregate
) -> raster.Grid | raster.Stretches:
    """Maps of several sets of weights (E, N) of one artwork's regions."""
    if support == "sam":
        runs, _ = region_runs(work.boxes, work.masks, work.height, work.width)
        return raster.rasterise_runs(runs, weights, work.height, work.width, aggregate)
    return raster.rasterise(work.boxes, weights, work.height, work.width, aggregate)


def _in_frame(truth: Truth, height: int, width: int) -> np.ndarray:
    """A label at another size, bool (height, width): pixels of which it covers at least half."""
    share = cv2.resize(truth.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    inside: np.ndarray = share >= 0.5
    return inside


def level_ious(levels: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """As `thresholds.sweep_ious` of a map's min-max, for maps of 256 levels: 256 of them instead of pixels.

    Args:
        levels: uint8 (h, w).
        truth: bool (h, w).
        thresholds: float64 (T,).

    Returns:
        float64 (T,).
    """
    inside = np.bincount(levels[truth], minlength=256)
    outside = np.bincount(levels[~truth], minlength=256)
    present = np.flatnonzero(inside + outside)
    low, high = int(present[0]), int(present[-1])
    if low == high:
        return np.zeros(len(thresholds))
    above = (np.arange(256) - float(low)) / float(high - low) > thresholds[:, None]
    intersection, false = above @ inside, above @ outside
    union = inside.sum() + false
    ious: np.ndarray = np.divide(intersection, union, out=np.zeros(len(thresholds)), where=union > 0)
    return ious
