"""Baselines that are pseudo-masks of another recipe, CLIP+SAM above all.

The same computation as CLIP+VinVL (`clip_vinvl`), from regions of another source: a params file of its own
with its own ``paths.data`` runs the steps up to `masks`, and the items' maps are read from there.
"""

from collections.abc import Sequence
from pathlib import Path

from model.maps.map_files import decode_png
from model.maps.prediction_writer import ItemPrediction, write_predictions
from pipeline.common.errors import UserError
from pipeline.common.tars import TarMembers
from pipeline.releases.apolo import ApoloItem


def copy_maps(folder: Path, method: str, masks: Path, items: Sequence[ApoloItem]) -> dict[str, int]:
    """Write the items' maps from another run's masks; returns counts of items, missing and unreadable ones.

    The other run may have another number of shards. Raises `UserError` when it has no masks, or none of these
    items.
    """
    tars = sorted(masks.glob("*.tar"))
    if not tars:
        raise UserError(
            f"baselines.maps: {masks} of {method} holds no masks; run the steps up to masks there, or "
            "correct the path"
        )
    left = {f"{item.key}.{item.emotion}.png": item for item in items}
    predictions: list[ItemPrediction] = []
    broken = 0
    for tar in tars:
        there = TarMembers([tar], "the masks step there")
        found = {name: data for name in left if (data := there.read(name)) is not None}
        for name, data in found.items():
            item = left.pop(name)
            try:
                predictions.append(ItemPrediction(item, item.emotion, decode_png(data)))
            except ValueError:
                broken += 1
    if not predictions:
        raise UserError(
            f"baselines.maps: {masks} of {method} has a map of none of the {len(items)} APOLO items"
        )
    write_predictions(folder, {method: predictions})
    return {"items": len(predictions), "missing": len(left), "unreadable": broken}
