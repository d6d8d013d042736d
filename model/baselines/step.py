"""Step `baselines`: predictions of every baseline that the params name, for the score table.

Writes ``data/baselines/``, see `rows`. Val and test items are both predicted: the former choose thresholds.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from model.baselines.detected_objects import SOURCES, write_objects
from model.baselines.other_recipes import copy_maps
from model.baselines.params import BaselinesParams, ObjectsParams
from model.baselines.rows import ROWS, write_rows
from model.baselines.wesd_training import NAME as WESD
from model.baselines.wesd_training import run_wesd
from pipeline.common.lock import writes
from pipeline.common.params import Paths
from pipeline.common.tables import table_file
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem, load_items


@writes(lambda paths, *_: [paths.step("baselines")], nested=True)
def build_baselines(paths: Paths, params: BaselinesParams) -> dict[str, Any]:
    """Predict every APOLO item by every baseline; returns counts by row. `UserError` for absent inputs.

    A detector's row is missing, with a line in ``left_out``, where this run's regions are another source's.
    """
    items, rejected = _items(paths)
    out = paths.step("baselines")
    (out / ROWS).unlink(missing_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    left_out: list[str] = []
    detectors: dict[str, ObjectsParams | None] = {"faster-rcnn": params.faster_rcnn, "vinvl": params.vinvl}
    for name, objects in detectors.items():
        if objects is None:
            continue
        counts = write_objects(out / name, name, objects, paths, {item.key for item in items})
        if counts is None:
            left_out.append(
                f"{name}: the regions in {paths.step('regions')} are not {' or '.join(SOURCES[name])}; name "
                "a folder of its regions in the params"
            )
        else:
            rows[name] = counts
    for name, masks in params.maps.items():
        rows[name] = copy_maps(out / name, name, masks, items)
    if params.wesd is not None:
        rows[WESD] = run_wesd(out / WESD, Index.load(paths.step("shards")), params.wesd, items)
    write_rows(out, list(rows))
    return {"items": len(items), "rejected_items": rejected, "rows": rows, "left_out": left_out}


def _items(paths: Paths) -> tuple[Sequence[ApoloItem], int]:
    utterances, artworks = (pq.read_table(table_file(paths, name)) for name in ("utterances", "artworks"))
    items, rejects = load_items(paths.apolo, utterances, artworks)
    return items, len(rejects)
