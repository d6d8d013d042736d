"""The contract between steps `baselines` and `score`: the folder ``data/baselines/``.

``rows.json`` names the rows in their order; only they are read. A method that predicts maps has a folder as
step `predict` writes them (``maps.tar``, ``predictions.parquet`` without explanations); one that predicts
objects has their boxes (``objects.parquet``), because a map would be scaled, resized and cut at a
threshold, and a picture that is all objects would have no foreground left.
"""

import json
from pathlib import Path

from model.baselines import detected_objects
from model.maps.method import Method
from model.maps.predictions import read_predictions
from model.metrics.segmentation import Scaling
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.params import Paths
from pipeline.common.sums import check_sum, write_sums

ROWS = "rows.json"


def write_rows(folder: Path, names: list[str]) -> None:
    """Name the rows that are there; written last, so that score never reads half a step."""
    write_json(folder / ROWS, names)
    write_sums(folder, (ROWS,))


def read_rows(paths: Paths, scaling: Scaling) -> list[Method]:
    """The rows of step `baselines`, none where it has not run. Raises `UserError` for unusable files."""
    folder = paths.step("baselines")
    if not (folder / ROWS).is_file():
        return []
    try:
        check_sum(folder / ROWS, "run the baselines step again")
        names: list[str] = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / ROWS} cannot be read ({error}); run the baselines step again") from None
    methods: list[Method] = []
    for name in names:
        if (folder / name / detected_objects.FILE).is_file():
            methods.append(detected_objects.read_objects(name, folder / name / detected_objects.FILE))
        else:
            methods += read_predictions(folder / name, scaling, "the baselines step")
    return methods
