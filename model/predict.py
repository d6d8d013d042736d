"""Step `predict`: a mask and an explanation for every APOLO item, from cached features.

Writes ``data/predict/VARIANT/``: ``predictions.parquet`` (`schema.PREDICTIONS`, one row per method, item and
seed) and ``maps.tar`` (``KEY.METHOD__EMOTION.npy``, float16 probabilities without the padding, any size).

With the prompt, each item is also predicted for another emotion of its artwork (``:other-emotion``): a model
that ignores what it is asked scores as well there.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import torch
from pydantic import Field
from torch import Tensor

from model.captioner import decode_text
from model.data import Frame
from model.emosem import EmoSEM, Segmentation
from model.grids import Features, dequantise, read_features, stack_sam
from pipeline import storage
from pipeline.apolo import ApoloItem, load_items
from pipeline.emotions import EMOTIONS, emotion_index
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.schema import PREDICTIONS, map_name
from pipeline.shard_index import Index


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class PredictParams:
    """How masks and explanations are drawn from a trained model."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus sampling's probability (Sec. 4.1); near 0 is greedy."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits before sampling."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 25
    """Budget of an explanation, its end-of-text token included (Sec. 4.1)."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """One explanation per item and seed; a text also depends on its artwork and emotion, on nothing else."""
    batch: Annotated[int, Field(gt=0)] = 16
    """Artworks answered at once; changes speed, and results by float noise only."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda."""

    def torch_device(self) -> str:
        """The device to run on. Raises `UserError` when a GPU is asked for and absent."""
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"predict.device is {self.device}, but torch sees no GPU; use auto or cpu")
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


@dataclass(frozen=True)
class Answer:
    """What a model says about one (artwork, emotion)."""

    probability: np.ndarray
    """float32 (h, w) in [0, 1], the artwork without SAM's padding, at the decoder's resolution."""
    explanations: tuple[str, ...]
    """One per seed."""


Question = tuple[str, str]
"""(key of an artwork, emotion)."""


def predict(paths: Paths, params: PredictParams, variant: str) -> dict[str, Any]:
    """Answer every APOLO item with ``runs/VARIANT``; returns counts. Raises `UserError` for absent inputs."""
    index = Index.load(paths.step("shards"))
    model = EmoSEM.from_pretrained(paths.runs / variant, params.torch_device())
    utterances, artworks = (
        pq.read_table(paths.step("utterances") / f"{name}.parquet") for name in ("utterances", "artworks")
    )
    items, rejects = load_items(paths.apolo, utterances, artworks)
    known = [item for item in items if item.key in index]
    method = method_name(model)
    asked = {method: {item: item.emotion for item in known}}
    if model.config.paradigm == "single" and model.config.prefix != "none":
        asked[f"{method}:other-emotion"] = other_emotions(known, index)

    questions = sorted({(item.key, emotion) for asks in asked.values() for item, emotion in asks.items()})
    read = functools.partial(read_features, index)
    answers = dict(answer(model, questions, read, params))
    out = paths.step("predict") / variant
    storage.write_tar(out / "maps.tar", _maps(asked, answers))
    storage.write_parquet(out / "predictions.parquet", _table(asked, answers, params.seeds))
    return {
        "items": len(items),
        "without_features": len(items) - len(known),
        "rejected_items": len(rejects),
        "predictions": {name: len(asks) for name, asks in asked.items()},
    }


def method_name(model: EmoSEM) -> str:
    """What the score table calls a model: the network, and what departs from the paper's (Tab. 4, 5, 6)."""
    config = model.config
    untied = not config.language_model.get("tie_word_embeddings", True)
    whole = "mask" if config.paradigm == "multi" else "mask+prompt"
    departures = {
        "no-prefix" if config.prefix == "none" else f"prefix-{config.prefix}": config.prefix != whole,
        "ambiguity-aware": config.ambiguity_aware,
        "ft-md": config.finetune == "mask-decoder",
        "detached-prompt": config.detach_prompt,
        "untied-words": untied and config.sca is None,
    }
    network = f"emosem-{config.paradigm}"
    if config.sca is not None:
        network = "sca-untied" if untied else "sca-base"
    return ":".join([network, *(name for name, there in departures.items() if there)])


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


def answer(
    model: EmoSEM,
    questions: Iterable[Question],
    read: Callable[[str], Features],
    params: PredictParams,
) -> Iterator[tuple[Question, Answer]]:
    """Answer questions, `params.batch` artworks at a time.

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
        asks = [Ask(row, key, emotion) for row, key in enumerate(batch) for emotion in by_artwork[key]]
        answers = answer_batch(model, [read(key) for key in batch], asks, params)
        yield from (((ask.key, ask.emotion), found) for ask, found in zip(asks, answers, strict=True))


class Ask(NamedTuple):
    """One question to a batch of artworks."""

    row: int
    """Place of the artwork in the batch."""
    key: str
    """Its name, for the seed of the explanation."""
    emotion: str


@torch.no_grad()
def answer_batch(
    model: EmoSEM, features: Sequence[Features], asks: Sequence[Ask], params: PredictParams
) -> list[Answer]:
    """Segment and explain all questions about a batch of artworks at once; one answer per question.

    Args:
        model: in eval mode.
        features: of the artworks, one each.
        asks: the questions, at least one.
        params: see `PredictParams`; its `batch` is the caller's business.
    """
    device = next(model.parameters()).device
    rows = torch.tensor([ask.row for ask in asks], device=device)
    codes, scale = stack_sam(features)
    sam = dequantise(codes.to(device), None if scale is None else scale.to(device))
    clip = torch.from_numpy(np.stack([f.clip for f in features])).to(device).float()
    emotions = torch.tensor([emotion_index(ask.emotion) for ask in asks], device=device)
    found = model.segment(sam, rows, emotions)
    texts = [_explain(model, found, clip[rows], asks, seed=seed, params=params) for seed in params.seeds]
    frame = Frame(model.config.image_size, side=4 * model.config.grid)
    answers = []
    probabilities = found.mask_logits.float().sigmoid().cpu().numpy()
    for number, ask in enumerate(asks):
        height, width = frame.valid_size(features[ask.row].input_height, features[ask.row].input_width)
        words = tuple(drawn[number] for drawn in texts)
        answers.append(Answer(probabilities[number, :height, :width], words))
    return answers


def _explain(
    model: EmoSEM,
    found: Segmentation,
    visual: Tensor,
    asks: Sequence[Ask],
    *,
    seed: int,
    params: PredictParams,
) -> list[str]:
    """One explanation per question, from a seed of its own."""
    if model.tokenizer is None:
        raise UserError("the model was saved without its tokenizer; it can segment, but not explain")
    rows = model.captioner.generate(
        found.prefix,
        found.prefix_mask,
        visual,
        [int(fingerprint(seed, ask.key, ask.emotion)[:15], 16) for ask in asks],
        max_new_tokens=params.max_new_tokens,
        top_p=params.top_p,
        temperature=params.temperature,
    )
    return [decode_text(model.tokenizer, row) for row in rows]


def _maps(
    asked: Mapping[str, Mapping[ApoloItem, str]], answers: Mapping[Question, Answer]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Tar samples by key; within a key by member name."""
    by_key: dict[str, dict[str, bytes]] = defaultdict(dict)
    for method, asks in asked.items():
        for item, emotion in asks.items():
            probability = answers[item.key, emotion].probability.astype(np.float16)
            by_key[item.key][map_name(method, item.emotion)] = storage.npy_bytes(probability)
    for key in sorted(by_key):
        yield key, dict(sorted(by_key[key].items()))


def _table(
    asked: Mapping[str, Mapping[ApoloItem, str]], answers: Mapping[Question, Answer], seeds: Sequence[int]
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
