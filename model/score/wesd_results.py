"""WESD's ``test_result.json``: a baseline's predictions as its authors' code writes them.

A JSON list of ``{"id": "PAINTING_EMOTION", "prediction_matrix": 49 x 8 raw logits, ...}``: one row per cell
of a 7x7 grid, row by row, one column per emotion, in this repository's order. Ids are written with ``.`` or
with ``#`` in its place. Source: the APOLO release, eval_map_iou.py.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline.common.emotions import EMOTIONS, emotion_index
from pipeline.common.errors import UserError

GRID = 7
CHUNK = 1 << 20
"""Characters read at a time."""
BETWEEN = re.compile(r"[\s,]*")
RECORD_CHARS = 1 << 25
"""A record beyond this length is no prediction: a real one has some 10,000 characters."""


def read_results(path: Path) -> Iterator[tuple[str, Any]]:
    """(id, what stands under ``prediction_matrix``, None when nothing does) of every record, in their order.

    One record is in memory at a time. Raises `UserError` when the file is no JSON list, or lines, of objects
    with an ``id``.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for record in _values(file):
                if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                    raise ValueError("it is no object with an id")
                yield record["id"], record.get("prediction_matrix")
                number += 1
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as WESD's test_result.json, a JSON list of objects with id and "
            f"prediction_matrix: record {number}: {error}"
        ) from None


def _values(file: TextIO) -> Iterator[Any]:
    """The elements of a JSON list, or values one after the other. Raises ValueError for what is neither."""
    decoder = json.JSONDecoder()
    text = file.read(CHUNK)
    while text.isspace():
        text = file.read(CHUNK)
    start = _start(text, 0)
    listed = text[start : start + 1] == "["
    place = start + listed
    while True:
        place = _start(text, place)
        if listed and text[place : place + 1] == "]":
            return
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            more = file.read(CHUNK)
            if more and len(text) - place <= RECORD_CHARS:
                text, place = text[place:] + more, 0
            elif more:
                raise ValueError(f"it is no JSON, or longer than {RECORD_CHARS} characters") from None
            elif listed or place < len(text):
                raise ValueError(f"it is no JSON, or the file ends within it: {error.msg}") from None
            else:
                return
        else:
            yield value


def _start(text: str, place: int) -> int:
    """Where the next value begins, or the text ends."""
    found = BETWEEN.match(text, place)
    return found.end() if found else place


def as_logits(matrix: Any) -> np.ndarray:
    """A record's ``prediction_matrix`` as float64 (49, 8). Raises `ValueError` when it is none."""
    wanted = (GRID * GRID, len(EMOTIONS))
    try:
        logits = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"prediction_matrix is no {wanted[0]} x {wanted[1]} table of numbers") from None
    if logits.shape != wanted:
        raise ValueError(f"prediction_matrix has shape {logits.shape}, expected {wanted}")
    return logits


def emotion_map(logits: np.ndarray, emotion: str) -> np.ndarray:
    """The map of one emotion in [0, 1], float64 (7, 7), from logits (49, 8); NaN stays NaN."""
    column = logits[:, emotion_index(emotion)].reshape(GRID, GRID)
    with np.errstate(over="ignore"):
        map_: np.ndarray = 1 / (1 + np.exp(-column))
    return map_
