"""Step `predict`: a mask and an explanation for every APOLO item, from cached features.

Writes ``data/predict/VARIANT/``: ``predictions.parquet`` (`schema.PREDICTIONS`, one row per method, item and
seed) and ``maps.tar`` (``KEY.METHOD__EMOTION.npy``, float16 probabilities without the padding, any size).

With the prompt, each item is also predicted for another emotion of its artwork (``:other-emotion``): a model
that ignores the emotion scores as well there.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from model.data.cached_features import Features, read_features
from model.emosem.config import method_name
from model.emosem.network import EmoSEM
from model.maps.prediction_writer import ItemPrediction, write_predictions
from model.predict.answer import BatchQuery, Prediction, predict_batch
from model.predict.params import PredictParams
from pipeline.common.emotions import EMOTIONS, emotion_index
from pipeline.common.lock import writes
from pipeline.common.params import Paths
from pipeline.common.tables import table_file
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem, load_items

Query = tuple[str, str]
"""(key of an artwork, emotion)."""


@writes(lambda paths, _, variant: [paths.step("predict") / variant])
def predict_items(paths: Paths, params: PredictParams, variant: str) -> dict[str, Any]:
    """Predict every APOLO item with ``runs/VARIANT``; returns counts. `UserError` for absent inputs."""
    index = Index.load(paths.step("shards"))
    model = EmoSEM.from_pretrained(paths.runs / variant, params.torch_device())
    utterances, artworks = (pq.read_table(table_file(paths, name)) for name in ("utterances", "artworks"))
    items, rejects = load_items(paths.apolo, utterances, artworks)
    known = [item for item in items if item.key in index]
    method = method_name(model.config)
    emotions = {method: {item: item.emotion for item in known}}
    if model.config.paradigm == "single" and model.config.prefix != "none":
        emotions[f"{method}:other-emotion"] = other_emotions(known, index)

    queries = sorted(
        {(item.key, emotion) for chosen in emotions.values() for item, emotion in chosen.items()}
    )
    read = functools.partial(read_features, index)
    predictions = dict(predict_queries(model, queries, read, params))
    by_method = {
        name: [_of_item(item, emotion, predictions[item.key, emotion]) for item, emotion in chosen.items()]
        for name, chosen in emotions.items()
    }
    write_predictions(paths.step("predict") / variant, by_method, params.seeds)
    return {
        "items": len(items),
        "without_features": len(items) - len(known),
        "rejected_items": len(rejects),
        "predictions": {name: len(chosen) for name, chosen in emotions.items()},
    }


def _of_item(item: ApoloItem, emotion: str, found: Prediction) -> ItemPrediction:
    return ItemPrediction(item, emotion, found.probability.astype(np.float16), found.explanations)


def other_emotions(items: Sequence[ApoloItem], index: Index) -> dict[ApoloItem, str]:
    """For each item the next emotion, in EMOTIONS' order, that its artwork also evokes by APOLO.

    Where APOLO knows no other, the next that ArtEmis's annotators felt; items without any are left out.
    """
    by_apolo: dict[str, set[str]] = defaultdict(set)
    for item in items:
        by_apolo[item.key].add(item.emotion)
    others = {}
    for item in items:
        felt = by_apolo[item.key] - {item.emotion} or set(index.row(item.key).emotions) - {item.emotion}
        start = emotion_index(item.emotion)
        cycle = [EMOTIONS[(start + step) % len(EMOTIONS)] for step in range(1, len(EMOTIONS))]
        following = [emotion for emotion in cycle if emotion in felt]
        if following:
            others[item] = following[0]
    return others


def predict_queries(
    model: EmoSEM,
    queries: Iterable[Query],
    read: Callable[[str], Features],
    params: PredictParams,
) -> Iterator[tuple[Query, Prediction]]:
    """Yield (query, prediction), `params.batch` artworks at a time.

    Args:
        model: in eval mode.
        queries: (key of an artwork, emotion), sorted by artwork.
        read: features of an artwork by its key.
        params: see `PredictParams`.
    """
    by_artwork: dict[str, list[str]] = defaultdict(list)
    for key, emotion in queries:
        by_artwork[key].append(emotion)
    keys = list(by_artwork)
    for start in range(0, len(keys), params.batch):
        batch = keys[start : start + params.batch]
        here = [BatchQuery(row, key, emotion) for row, key in enumerate(batch) for emotion in by_artwork[key]]
        found = predict_batch(model, [read(key) for key in batch], here, params)
        yield from (((query.key, query.emotion), each) for query, each in zip(here, found, strict=True))
