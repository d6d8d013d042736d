"""Label Studio's JSON export (labelstud.io/guide/task_format) of the tasks that `export-masks` wrote."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import UserError
from pipeline.export_masks.brush_rle import BadBrush, decode_brush
from pipeline.export_masks.label_studio import VERDICTS
from pipeline.review.foreign import Foreign, Rejected

LARGEST = 1 << 28
"""Pixels of a mask."""


def read_label_studio(file: Path, by: str | None) -> Iterator[Foreign | Rejected]:
    """Yield the annotations of all tasks.

    Args:
        file: exported as JSON (not JSON-MIN, which leaves out who said what).
        by: who annotated; None: the e-mail or number that the file gives.

    Raises `UserError` where the file is no such export.
    """
    try:
        tasks = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON export of Label Studio: {error}") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{file} is no JSON export of Label Studio: it must be a list of tasks")
    for place, task in enumerate(tasks):
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            name = f"task {task.get('id', place)}"
            yield Rejected(name, "no-annotations", "no list of annotations; export as JSON, not JSON-MIN")
            continue
        for number, annotation in enumerate(annotations):
            source = f"task {task.get('id', place)}, annotation {number}"
            try:
                yield _annotation(source, task, annotation, by)
            except (BadBrush, KeyError, TypeError, ValueError, AttributeError) as error:
                yield Rejected(source, "not-readable", f"{type(error).__name__}: {error}"[:200])


def _annotation(source: str, task: dict[str, Any], annotation: dict[str, Any], by: str | None) -> Foreign:
    data, results = task["data"], annotation["result"]
    emotion = str(data["emotion"])
    given: dict[str, Any] = next(iter(task.get("predictions") or []), {})
    choices = [choice for result in results for choice in result["value"].get("choices", [])]
    named = choices[0].replace(" ", "-") if choices and choices[0] in VERDICTS else None
    if annotation.get("was_cancelled"):
        named = "skip"
    digest = hashlib.sha256(json.dumps([annotation.get("updated_at"), results], sort_keys=True).encode())
    person = annotation.get("completed_by")
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return Foreign(
        source=source,
        id=f"ls-{int(annotation.get('id', 0))}-{digest.hexdigest()[:12]}",
        key=str(data["key"]),
        emotion=emotion,
        by=by or (f"label-studio-{person}" if not isinstance(person, str) else person),
        at=str(annotation.get("updated_at") or annotation["created_at"]),
        verdict=named,
        mask=_mask(results, emotion),
        before=_mask(given.get("result", []), emotion),
        recipe=str(given.get("model_version") or ""),
    )


def _mask(results: list[dict[str, Any]], emotion: str) -> np.ndarray | None:
    """All strokes of the emotion together; None without any. Raises `BadBrush`."""
    mask: np.ndarray | None = None
    for result in results:
        if result.get("type") != "brushlabels" or result["value"].get("brushlabels") != [emotion]:
            continue
        height, width = int(result["original_height"]), int(result["original_width"])
        if not 0 < height * width <= LARGEST:
            raise BadBrush(f"a mask of {height}x{width} pixels cannot be")
        part = decode_brush(result["value"]["rle"], height, width)
        mask = part if mask is None else mask | part
    return mask
