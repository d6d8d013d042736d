"""Step `predict`: a mask and an explanation for every APOLO item, from cached features.

Writes ``data/predict/VARIANT/``: ``predictions.parquet`` (`schema.PREDICTIONS`, one row per method, item and
seed) and ``maps.tar`` (``KEY.METHOD__EMOTION.npy``, float16 probabilities without the padding, any size).

With the prompt, each item is also predicted for another emotion of its artwork (``:other-emotion``): a model
that ignores what it is asked scores as well there.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.data.cached_features import Features, read_features
from model.emosem.config import method_name
from model.emosem.network import EmoSEM
from model.predict.answer import BatchQuery, Prediction, PredictParams, predict_batch
from pipeline.common.emotions import EMOTIONS, emotion_index
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import PREDICTIONS, map_name
from pipeline.common.tars import npy_bytes, write_tar
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem, load_items

Query = tuple[str, str]
"""(key of an artwork, emotion)."""


def predict_items(paths: Paths, params: PredictParams, variant: str) -> dict[str, Any]:
    """Answer every APOLO item with ``runs/VARIANT``; returns counts. Raises `UserError` for absent inputs."""
    index = Index.load(paths.step("shards"))
    model = EmoSEM.from_pretrained(paths.runs / variant, params.torch_device())
    utterances, artworks = (
        pq.read_table(paths.step("utterances") / f"{name}.parquet") for name in ("utterances", "artworks")
    )
    items, rejects = load_items(paths.apolo, utterances, artworks)
    known = [item for item in items if item.key in index]
    method = method_name(model.config)
    asked = {method: {item: item.emotion for item in known}}
    if model.config.paradigm == "single" and model.config.prefix != "none":
        asked[f"{method}:other-emotion"] = other_emotions(known, index)

    questions = sorted({(item.key, emotion) for asks in asked.values() for item, emotion in asks.items()})
    read = functools.partial(read_features, index)
    answers = dict(predict_queries(model, questions, read, params))
    out = paths.step("predict") / variant
    write_tar(out / "maps.tar", _maps(asked, answers))
    write_parquet(out / "predictions.parquet", _table(asked, answers, params.seeds))
    return {
        "items": len(items),
        "without_features": len(items) - len(known),
        "rejected_items": len(rejects),
        "predictions": {name: len(asks) for name, asks in asked.items()},
    }


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
    questions: Iterable[Query],
    read: Callable[[str], Features],
    params: PredictParams,
) -> Iterator[tuple[Query, Prediction]]:
    """Answer queries, `params.batch` artworks at a time.

    Args:
        model: in eval mode.
        questions: sorted by artwork.
        read: features of an artwork by its key.
        params: see `PredictParams`.
    """
    by_artwork: dict[str, list[str]] = defaultdict(list)
    for key, emotion in questions:
        by_artwork[key].append(emotion)
    keys = list(by_artwork)
    for start in range(0, len(keys), params.batch):
        batch = keys[start : start + params.batch]
        asks = [BatchQuery(row, key, emotion) for row, key in enumerate(batch) for emotion in by_artwork[key]]
        answers = predict_batch(model, [read(key) for key in batch], asks, params)
        yield from (((ask.key, ask.emotion), found) for ask, found in zip(asks, answers, strict=True))


def _maps(
    asked: Mapping[str, Mapping[ApoloItem, str]], answers: Mapping[Query, Prediction]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Tar samples by key; within a key by member name."""
    by_key: dict[str, dict[str, bytes]] = defaultdict(dict)
    for method, asks in asked.items():
        for item, emotion in asks.items():
            probability = answers[item.key, emotion].probability.astype(np.float16)
            by_key[item.key][map_name(method, item.emotion)] = npy_bytes(probability)
    for key in sorted(by_key):
        yield key, dict(sorted(by_key[key].items()))


def _table(
    asked: Mapping[str, Mapping[ApoloItem, str]], answers: Mapping[Query, Prediction], seeds: Sequence[int]
) -> pa.Table:
    """`schema.PREDICTIONS`, sorted by method, key, item's emotion and place of the seed."""
    rows = [
        {
            "method": method,
            "key": item.key,
            "painting": item.painting,
            "split": item.split,
            "item_emotion": item.emotion,
            "asked_emotion": emotion,
            "explanation": explanation,
            "seed": seed,
        }
        for method, asks in sorted(asked.items())
        for item, emotion in sorted(asks.items(), key=lambda ask: (ask[0].key, ask[0].emotion))
        for seed, explanation in zip(seeds, answers[item.key, emotion].explanations, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)
