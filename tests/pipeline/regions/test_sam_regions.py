"""SAM's masks as regions and of boxes, against segment_anything's own generator and predictor."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from pipeline.backbones.params import BackbonesParams, SamParams
from pipeline.backbones.sam import load_sam_model
from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.common.geometry import pixel_ranges
from pipeline.common.params import Paths
from pipeline.common.tables import read_artworks
from pipeline.parallel.map_shards import ParallelParams
from pipeline.regions import prompted_sam
from pipeline.regions.params import RegionsParams, SamMasksParams
from pipeline.regions.prompted_sam import PromptedSam
from pipeline.regions.step import build_regions
from tests.imports import ROOT
from tests.worlds.backbones import write_world

RNG = np.random.default_rng(4)
TINY = ROOT / "weights" / "tiny"
LENIENT = SamMasksParams(
    points_per_side=6,
    points_per_batch=7,
    pred_iou_thresh=0.1,
    stability_score_thresh=0.2,
    box_nms_thresh=0.7,
)
"""The small SAM thinks little of its masks."""


def draw(width: int, height: int) -> np.ndarray:
    """Coloured discs and bars on a shaded ground, uint8 RGB."""
    image = np.linspace(60, 200, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    for _ in range(8):
        colour = RNG.integers(0, 256, 3).tolist()
        x, y = RNG.integers(0, [width, height]).tolist()
        size = int(RNG.integers(8, 40))
        if RNG.random() < 0.5:
            cv2.circle(image, (x, y), size, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + size, y + 2 * size), colour, -1)
    return image


IMAGES = [draw(190, 140), draw(90, 231), draw(256, 256)]


@pytest.fixture(scope="module")
def backbones() -> BackbonesParams:
    return BackbonesParams(sam=SamParams("tiny", TINY / "sam.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def model(backbones: BackbonesParams) -> PromptedSam:
    return prompted_sam.load(backbones.sam, "cpu")


def dense(text: str | None) -> np.ndarray:
    rle = json.loads(text or "")
    mask: np.ndarray = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()})
    return mask.astype(bool)


def official(backbones: BackbonesParams, image: np.ndarray, params: SamMasksParams) -> list[dict[str, Any]]:
    generator = SamAutomaticMaskGenerator(
        load_sam_model("tiny", backbones.sam.checkpoint),
        points_per_side=params.points_per_side,
        points_per_batch=params.points_per_batch,
        pred_iou_thresh=params.pred_iou_thresh,
        stability_score_thresh=params.stability_score_thresh,
        stability_score_offset=params.stability_score_offset,
        box_nms_thresh=params.box_nms_thresh,
    )
    records: list[dict[str, Any]] = generator.generate(image)
    return records


@pytest.mark.parametrize("number", range(len(IMAGES)))
def test_point_masks_equal_segment_anythings(
    backbones: BackbonesParams, model: PromptedSam, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = IMAGES[number]
    height, width = image.shape[:2]
    scores = np.array([r["predicted_iou"] for r in official(backbones, image, LENIENT)])
    middle = float(scores[len(scores) // 2 - 1 :][:2].mean())  # between two, as float noise could decide
    params = SamMasksParams(**{**vars(LENIENT), "pred_iou_thresh": middle})
    expected = official(backbones, image, params)
    assert 1 < len(expected) < len(scores)
    monkeypatch.setattr(prompted_sam, "PIXELS_AT_ONCE", 2 * height * width + 1)  # two masks at a time
    found = model.point_masks(model.encode([image])[0], height, width, params, most=1000)
    assert found.weak == 0
    np.testing.assert_allclose(found.scores, [r["predicted_iou"] for r in expected], atol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    for text, box, record in zip(found.masks, found.boxes, expected, strict=True):
        ours = dense(text)
        # float noise of the fused attention moves a pixel of a boundary now and then
        assert (ours != record["segmentation"]).mean() < 1e-3
        rows, columns = np.nonzero(ours)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(box, tight)


def test_filters_leave_what_they_say(model: PromptedSam) -> None:
    image = IMAGES[0]
    height, width = image.shape[:2]
    grid = model.encode([image])[0]
    every = model.point_masks(grid, height, width, LENIENT, most=1000)
    few = model.point_masks(grid, height, width, LENIENT, most=2)
    assert few.masks == every.masks[:2] and few.weak == len(every.masks) - 2
    np.testing.assert_array_equal(few.boxes, every.boxes[:2])
    shares = [dense(text).mean() for text in every.masks]
    smallest = float(np.median(shares))
    large = model.point_masks(
        grid, height, width, SamMasksParams(**{**vars(LENIENT), "min_area": smallest}), most=1000
    )
    assert large.masks and min(dense(text).mean() for text in large.masks) >= smallest
    none = model.point_masks(grid, height, width, SamMasksParams(2, pred_iou_thresh=5.0), most=10)
    assert (none.masks, none.boxes.shape, none.scores.shape, none.weak) == ([], (0, 4), (0,), 0)


@pytest.mark.parametrize("number", range(len(IMAGES)))
def test_box_masks_equal_segment_anythings(
    backbones: BackbonesParams, model: PromptedSam, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = IMAGES[number]
    height, width = image.shape[:2]
    corners = np.sort(RNG.uniform(0, 1, (9, 2, 2)), 1).reshape(-1, 4)
    boxes = (corners * [width, height, width, height]).astype(np.float32)
    monkeypatch.setattr(prompted_sam, "BOXES_PER_BATCH", 4)
    monkeypatch.setattr(prompted_sam, "PIXELS_AT_ONCE", 3 * height * width)
    found = model.box_masks(model.encode([image])[0], boxes, height, width)
    assert len(found) == len(boxes)
    predictor = SamPredictor(load_sam_model("tiny", backbones.sam.checkpoint))
    predictor.set_image(image)
    for box, (x1, y1, x2, y2), text in zip(boxes, pixel_ranges(boxes, height, width), found, strict=True):
        masks, _, _ = predictor.predict(box=box, multimask_output=False)
        expected = np.zeros((height, width), bool)
        expected[y1:y2, x1:x2] = masks[0, y1:y2, x1:x2]
        ours = np.zeros((height, width), bool) if text is None else dense(text)
        assert (ours != expected).mean() < 1e-3


def test_no_boxes_have_no_masks(model: PromptedSam) -> None:
    assert model.box_masks(model.encode(IMAGES[:1])[0], np.empty((0, 4), np.float32), 70, 90) == []


def test_a_sam_that_marks_nothing_gives_none(model: PromptedSam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.sam, "mask_threshold", 1e9)
    assert model.box_masks(model.encode(IMAGES[:1])[0], np.array([[3, 3, 40, 40]]), 70, 90) == [None]


def rows_of(paths: Paths) -> dict[str, dict[str, Any]]:
    files = sorted(paths.step("regions").glob("*.parquet"))
    return {
        row["key"]: row for file in files for row in pq.read_table(file, schema=schema.REGIONS).to_pylist()
    }


def test_the_step_with_source_sam(backbones: BackbonesParams, model: PromptedSam, tmp_path: Path) -> None:
    paths = write_world(tmp_path)
    (paths.wikiart / "Drawn" / "ada_title-3.png").write_bytes(b"no picture")
    lenient = SamMasksParams(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    params = RegionsParams(source="sam", sam=lenient, min_detections=1, max_detections=3)
    counts = build_regions(paths, params, backbones, ParallelParams())
    assert (counts["kept"], counts["rejected"]) == (4, 1)
    rows = rows_of(paths)
    works = [work for shard in (0, 1) for work in read_artworks(paths, shard)]
    for work in works:
        if work["painting"] == "ada_title-3":
            assert work["key"] not in rows
            continue
        row = rows[work["key"]]
        image = np.array(Image.open(paths.wikiart / work["path"]))
        grid = model.encode([image])[0]
        expected = model.point_masks(grid, work["height"], work["width"], lenient, most=3)
        assert row["source"] == "sam" and row["masks"] == expected.masks
        np.testing.assert_allclose(row["scores"], expected.scores, atol=1e-6)
    before = {p.name: p.read_bytes() for p in paths.step("regions").glob("*.parquet")}
    assert build_regions(paths, params, backbones, ParallelParams())["skipped"] == 2
    for file in paths.step("regions").iterdir():
        file.unlink()
    build_regions(paths, params, backbones, ParallelParams())
    assert {p.name: p.read_bytes() for p in paths.step("regions").glob("*.parquet")} == before


def test_an_artwork_without_masks_is_one_region(backbones: BackbonesParams, tmp_path: Path) -> None:
    paths = write_world(tmp_path)
    counts = build_regions(
        paths,
        RegionsParams(source="sam", sam=SamMasksParams(points_per_side=2, pred_iou_thresh=5.0)),
        backbones,
        ParallelParams(),
    )
    assert counts["whole_artworks"] == counts["regions"] == 5
    assert all(dense(row["masks"][0]).all() for row in rows_of(paths).values())


def write_boxes(paths: Paths) -> None:
    """APOLO's released boxes of the world, one of them empty."""
    from pipeline.releases.apolo_arrays import BOXES

    folder = paths.apolo / BOXES
    folder.mkdir(parents=True)
    for number in range(5):
        values = np.array([[0.1, 0.1, 0.6, 0.7], [0.3, 0.3, 0.3, 0.3], [0.0, 0.5, 1.0, 1.0]], np.float32)
        np.save(folder / f"ada_title-{number}.npy", values)


def test_sam_support_adds_masks_to_the_boxes_of_any_source(
    backbones: BackbonesParams, model: PromptedSam, tmp_path: Path
) -> None:
    paths = write_world(tmp_path)
    paths = Paths(**{**vars(paths), "apolo": tmp_path / "apolo"})
    write_boxes(paths)
    plain = RegionsParams(source="apolo", min_detections=1)
    build_regions(paths, plain, backbones, ParallelParams())
    without = rows_of(paths)
    (paths.wikiart / "Drawn" / "ada_title-3.png").write_bytes(b"no picture")
    params = RegionsParams(source="apolo", min_detections=1, sam_support=True, batch=2)
    counts = build_regions(paths, params, backbones, ParallelParams())
    assert (counts["done"], counts["kept"], counts["rejected"]) == (2, 4, 1)
    found = rows_of(paths)
    assert len(found) == 4
    works = {work["key"]: work for shard in (0, 1) for work in read_artworks(paths, shard)}
    for key, row in found.items():
        assert {**row, "masks": None} == without[key] and len(row["masks"]) == 2
        work = works[key]
        image = np.array(Image.open(paths.wikiart / work["path"]))
        grid = model.encode([image])[0]
        expected = model.box_masks(grid, np.array(row["boxes"]), work["height"], work["width"])
        for ours, theirs in zip(row["masks"], expected, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert (dense(ours) != dense(theirs)).mean() < 1e-3  # pictures were encoded in pairs
    assert build_regions(paths, params, backbones, ParallelParams())["skipped"] == 2


def test_missing_weights_are_a_users_mistake(tmp_path: Path) -> None:
    paths = write_world(tmp_path)
    with pytest.raises(UserError, match="do not exist"):
        build_regions(
            paths,
            RegionsParams(source="sam"),
            BackbonesParams(sam=SamParams("tiny", tmp_path / "none.safetensors")),
            ParallelParams(),
        )
    with pytest.raises(UserError, match="do not exist"):
        build_regions(
            paths,
            RegionsParams(source="apolo", sam_support=True),
            BackbonesParams(sam=SamParams("vit_b", tmp_path / "none.pth")),
            ParallelParams(),
        )


def test_params_are_read_without_torch() -> None:
    code = "import sys; from pipeline.regions.params import RegionsParams; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
