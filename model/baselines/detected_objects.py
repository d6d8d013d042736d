"""The baselines VinVL and Faster R-CNN: every object that the detector is sure of evokes the emotion.

The foreground is the union of the boxes, whatever the emotion, and is scored as it is. It is drawn at the
label's size: a pixel belongs to a box when its centre does, as everywhere here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.baselines.params import ObjectsParams
from model.maps.method import Method
from pipeline.common.digests import check_file
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.geometry import pixel_ranges
from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS
from pipeline.common.sums import check_sum, write_sums
from pipeline.common.tables import table_file
from pipeline.releases.apolo import ApoloItem

FILE = "objects.parquet"
OBJECTS = pa.schema(
    [
        ("key", pa.string()),
        ("width", pa.int32()),  # of the upright picture, pixels
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.list_(pa.float32()))),  # xyxy in its pixels: the objects that count
    ]
)
SOURCES = {
    "vinvl": ("vinvl", "apolo", "predictions_tsv", "features_tsv"),
    "faster-rcnn": ("faster_rcnn",),
}
"""Method -> `regions.source` of what it detected. APOLO released VinVL's boxes without scores: all count."""
WHOLE = ":whole"
"""Ends the source of an artwork in which nothing was detected (`pipeline.regions.region_row`)."""


def write_objects(
    folder: Path, method: str, params: ObjectsParams, paths: Paths, keys: Collection[str]
) -> dict[str, int] | None:
    """Write the confident objects of some artworks; returns counts.

    An artwork whose regions are not there has no row, one without a confident object has no box in its row.

    Args:
        folder: where `FILE` goes.
        method: a key of `SOURCES`.
        params: the threshold, and which regions.
        paths: where the artworks' sizes lie, and the regions where `params` names none.
        keys: the artworks.

    Returns:
        Counts of artworks, objects and artworks ``without_objects``; None, and nothing written, when the
        regions are this run's own and another source's.

    Raises:
        UserError: there are no regions, or those that `params` names are another source's.
    """
    regions = read_regions(params.regions or paths.step("regions"), keys)
    foreign = sorted({row["source"].removesuffix(WHOLE) for row in regions} - set(SOURCES[method]))
    if foreign:
        if params.regions is None:
            return None
        raise UserError(
            f"baselines: the regions in {params.regions} are of {', '.join(foreign)}, not of {method}, whose "
            f"regions.source is {' or '.join(SOURCES[method])}"
        )
    works = pq.read_table(table_file(paths, "artworks"), columns=["key", "width", "height"])
    sizes = {row["key"]: row for row in works.to_pylist()}
    rows = [
        sizes[row["key"]] | {"boxes": confident_boxes(row, params.confidence)}
        for row in regions
        if row["key"] in sizes
    ]
    write_parquet(folder / FILE, pa.Table.from_pylist(rows, schema=OBJECTS))
    write_sums(folder, (FILE,))
    counts = [len(row["boxes"]) for row in rows]
    return {"artworks": len(rows), "objects": sum(counts), "without_objects": counts.count(0)}


def read_regions(folder: Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """Rows of `schema.REGIONS`, without names and masks, of some artworks, by key. Raises `UserError`."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(
            f"{folder} holds no regions; run the regions step there, or name another folder in `baselines`"
        )
    names = ["key", "boxes", "scores", "source"]
    schema = pa.schema([REGIONS.field(name) for name in names])
    wanted = pa.array(sorted(keys), pa.string())
    rows: list[dict[str, Any]] = []
    try:
        for file in files:
            table = pq.read_table(check_file(file), columns=names)
            mask = pc.is_in(table["key"], wanted)
            rows += table.filter(mask).cast(schema).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); run the regions step again") from None
    return sorted(rows, key=lambda row: str(row["key"]))


def confident_boxes(row: Mapping[str, Any], confidence: float) -> list[list[float]]:
    """The boxes of a row of `schema.REGIONS` at or above a score; none where nothing was detected."""
    if row["source"].endswith(WHOLE):
        return []
    pairs = zip(row["boxes"], row["scores"], strict=True)
    return [box for box, score in pairs if np.float32(score) >= np.float32(confidence)]


def read_objects(method: str, path: Path) -> Method:
    """What `write_objects` wrote as a method. Raises `UserError` when the file is unusable."""
    try:
        check_sum(path, "run the baselines step again")
        table = pq.read_table(path, schema=OBJECTS)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the baselines step again") from None
    rows = {row["key"]: row for row in table.to_pylist()}

    def foreground(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        row = rows.get(item.key)
        if row is None:
            return None
        scale = [width / row["width"], height / row["height"]] * 2
        return union(np.asarray(row["boxes"], np.float64).reshape(-1, 4) * scale, height, width)

    return Method(method, foreground, finished=True)


def union(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels that any of the boxes covers.

    Args:
        boxes: (N, 4) xyxy, pixels.
        height, width: of the picture.

    Returns:
        bool (height, width).
    """
    covered = np.zeros((height, width), dtype=np.bool_)
    for x1, y1, x2, y2 in pixel_ranges(boxes, height, width).tolist():
        covered[y1:y2, x1:x2] = True
    return covered
