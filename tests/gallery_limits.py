"""Which of the built-in gallery's parts costs how many points: `python -m tests.gallery_limits PARAMS`.

In every row the truth stands in for all parts before the one that is looked at: the label's boxes for the
detector, the right region for CLIP, the label's box for SAM. Scored on APOLO's test items by the protocol;
what is lost from one row to the next is the part's. Needs the steps up to `similarity`.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from model.label_card.card import pseudo_mask_method
from model.label_card.sweep import Factors, RecipeSource, read_source
from model.maps.method import Method
from model.score.items import read_items
from model.score.params import ScoreParams
from model.score.score_masks import score_masks, sweep_masks
from pipeline.backbones.params import BackbonesParams
from pipeline.common import rle
from pipeline.common.params import Params, Paths
from pipeline.common.tables import open_artworks
from pipeline.masks.recipe import MasksParams
from pipeline.regions import prompted_sam
from pipeline.regions.prompted_sam import PromptedSam
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.apolo_arrays import load_truth
from pipeline.releases.wikiart import read_image

LEAST = 0.002
"""Components of a label below this share of the picture are crumbs of an occlusion and have no box."""

Regions = Callable[[ApoloItem], np.ndarray]
"""An item's chosen boxes, (N, 4) xyxy in its picture's pixels."""


def truth_boxes(item: ApoloItem) -> np.ndarray:
    """The tight boxes of a label's components, (N, 4) xyxy pixels of the label."""
    label = (load_truth(item.map_path) > 0).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(label, connectivity=8)
    large = [row for row in stats[1:] if row[4] >= LEAST * label.size] or list(stats[1:])
    return np.array([(x, y, x + w, y + h) for x, y, w, h, _ in large], np.float32).reshape(-1, 4)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (N, 4) and (M, 4)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(min=0).prod(-1)
    areas = [(box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)


class Limits:
    """The gallery's items with their regions, similarities and truth."""

    def __init__(self, paths: Paths, sam: PromptedSam, source: RecipeSource) -> None:
        self.paths, self.sam, self.source = paths, sam, source
        table = open_artworks(paths)
        self.files = dict(zip(table["key"].to_pylist(), table["path"].to_pylist(), strict=True))

    def work(self, item: ApoloItem) -> tuple[Factors, np.ndarray]:
        """An item's artwork, and the cosines (N,) of its regions."""
        found = self.source.find(item)
        if found is None:
            raise SystemExit(f"{item.painting}: no regions or similarities; run these steps first")
        return found[0], found[1][0]

    def best(self, item: ApoloItem) -> np.ndarray:
        """Of every component of the label the region with the highest IoU."""
        work, _ = self.work(item)
        return work.boxes[np.unique(overlaps(truth_boxes(item), work.boxes).argmax(1))]

    def top(self, item: ApoloItem) -> np.ndarray:
        """The region that CLIP finds most similar."""
        work, cosines = self.work(item)
        return work.boxes[cosines.argmax()][None]

    def boxes_method(self, name: str, regions: Regions) -> Method:
        """These boxes, filled."""

        def answer(item: ApoloItem, height: int, width: int) -> np.ndarray:
            found = np.zeros((height, width), np.bool_)
            for x1, y1, x2, y2 in regions(item).round().astype(int):
                found[y1:y2, x1:x2] = True
            return found

        return Method(name, answer, finished=True)

    def sam_method(self, name: str, regions: Regions) -> Method:
        """SAM's masks of these boxes."""

        def answer(item: ApoloItem, height: int, width: int) -> np.ndarray:
            image = read_image(self.paths.wikiart / self.files[item.key])
            texts = self.sam.box_masks(self.sam.encode([image])[0], regions(item), height, width)
            found = np.zeros(height * width, np.bool_)  # down the columns
            for text in texts:
                for first, behind in rle.decode(text, height, width) if text is not None else ():
                    found[first:behind] = True
            return found.reshape(width, height).T

        return Method(name, answer, finished=True)

    def regions_found(self, items: list[ApoloItem]) -> Iterator[str]:
        """How often the detector has the right region, and how often CLIP ranks one of these first."""
        found, first, ranked = [], [], []
        for item in items:
            work, cosines = self.work(item)
            ious = overlaps(truth_boxes(item), work.boxes)
            found += (ious.max(1) >= 0.5).tolist()
            right = (ious >= 0.5).any(0)
            if right.any():
                first.append(bool(right[cosines.argmax()]))
                ranked.append(1 + int((cosines > cosines[right].max()).sum()))
        yield f"components with a region of IoU 0.5: {100 * np.mean(found):.1f} % of {len(found)}"
        yield (
            f"such a region is CLIP's first: {100 * np.mean(first):.1f} % of {len(first)} items with one; "
            f"mean rank of the best of them {np.mean(ranked):.2f}"
        )


def main(params: Path) -> None:
    """Print the rows."""
    file = Params.read(params)
    paths, score = file.section("paths", Paths), file.section("score", ScoreParams)
    recipe = file.section("masks", MasksParams)
    test, every, _ = read_items(paths.apolo, "test", paths)
    val = [item for item in every if item.split == "val"]
    source = read_source(paths, {item.key for item in every})
    limits = Limits(paths, prompted_sam.load(file.section("backbones", BackbonesParams).sam, "cpu"), source)
    methods = [
        limits.boxes_method("label's own boxes", truth_boxes),
        limits.boxes_method("best region per component (detector)", limits.best),
        limits.boxes_method("CLIP's first region (+ ranking)", limits.top),
        pseudo_mask_method("pseudo-mask (+ aggregation)", source, recipe, score),
        limits.sam_method("SAM, label's own boxes", truth_boxes),
        limits.sam_method("SAM, best region per component", limits.best),
        limits.sam_method("SAM, CLIP's first region", limits.top),
    ]
    chosen = [None if s is None else s.best(score.threshold) for s in sweep_masks(val, methods, score)]
    table = score_masks(test, methods, score, chosen)
    print(f"{len(test)} test items. At the threshold chosen on val where there is one\n")
    print("| row | mean IoU | Seg Pr@25 | Seg Pr@50 | Box Pr@50 |\n| --- | ---: | ---: | ---: | ---: |")
    for number, method in enumerate(methods):
        rates, ious = table.rates(number), table.iou_seg_val[number][table.counted]
        shown = [100 * ious.mean(), rates["seg_pr25_val"], rates["seg_pr50_val"], rates["box_pr50_val"]]
        print(f"| {method.name} | " + " | ".join(f"{value:.1f}" for value in shown) + " |")
    print()
    for line in limits.regions_found(list(test)):
        print(line)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "params.yaml"))
