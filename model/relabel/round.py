"""The finished round that `relabel` reads: its labels and features by its index, and its students."""

import functools
import json
from typing import Any, NamedTuple

import cv2
import numpy as np

from model.data.cached_features import Features, read_features
from model.relabel.folders import check_round, check_students
from model.relabel.params import RelabelParams
from model.relabel.students import Students, describe_students
from pipeline.common.emotions import EMOTIONS
from pipeline.common.fingerprint import sha256_file
from pipeline.reader.index import Index


class Label(NamedTuple):
    """An artwork of the finished round."""

    card: dict[str, Any]
    """KEY.json of its masks."""
    masks: dict[str, np.ndarray]
    """Emotion, in their order -> stored label, uint8 (h, w); those that are no pictures are left out."""
    features: Features
    refusal: str | None
    """Why the students cannot look at it, see `Students.refusal`."""


class Round:
    """A finished round, opened in one process. Raises `UserError` as `Index.load` and `Students`."""

    def __init__(self, params: RelabelParams) -> None:
        self.index = Index.load(params.labels / "shards")
        self.students = Students(params.students, params.torch_device())

    def read(self, key: str) -> Label | None:
        """An artwork, or None when the round has none of this key. Raises `UserError` as `read_features`."""
        if key not in self.index:
            return None
        features = read_features(self.index, key)
        card = json.loads(self.index.read(key, "masks/json"))
        read = {emotion: self._mask(key, emotion) for emotion in EMOTIONS if emotion in card["emotions"]}
        masks = {emotion: mask for emotion, mask in read.items() if mask is not None}
        about = json.loads(self.index.read(key, "features/json"))
        return Label(card, masks, features, self.students.refusal(features, about))

    def _mask(self, key: str, emotion: str) -> np.ndarray | None:
        data = np.frombuffer(self.index.view(key, f"{emotion}.png"), np.uint8)
        mask: np.ndarray | None = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        return mask


@functools.lru_cache(maxsize=1)
def open_round(params: RelabelParams, _digest: str) -> Round:
    """The round, opened once in a process; `_digest`: of its index and students, for one that has changed."""
    return Round(params)


def describe_round(params: RelabelParams) -> dict[str, Any]:
    """What decides a round's bytes: ``students`` (method and SHA-256), their ``configs``, the ``index``.

    Raises `UserError` where a student or the index is absent.
    """
    check_students(params.students)
    return {
        "students": describe_students(params.students),
        "configs": [sha256_file(run / "config.json") for run in params.students],
        "index": sha256_file(check_round(params.labels)),
    }
