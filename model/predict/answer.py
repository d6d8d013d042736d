"""Masks and explanations of a batch of artworks, from a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.data.cached_features import Features, dequantise, stack_sam
from model.data.frame import Frame
from model.emosem.captioner import decode_text
from model.emosem.network import EmoSEM, Segmentation
from model.predict.params import PredictParams
from pipeline.common.emotions import emotion_index
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for one (artwork, emotion)."""

    probability: np.ndarray
    """float32 (h, w) in [0, 1], the artwork without SAM's padding, at the decoder's resolution."""
    explanations: tuple[str, ...]
    """One per seed."""


class BatchQuery(NamedTuple):
    """One (artwork, emotion) to predict, in a batch of artworks."""

    row: int
    """Place of the artwork in the batch."""
    key: str
    """Its name, for the seed of the explanation."""
    emotion: str


@torch.no_grad()
def predict_batch(
    model: EmoSEM, features: Sequence[Features], queries: Sequence[BatchQuery], params: PredictParams
) -> list[Prediction]:
    """Segment and explain a batch of artworks at once; one prediction per query, in their order.

    Args:
        model: in eval mode.
        features: of the artworks, one each.
        queries: at least one.
        params: see `PredictParams`; its `batch` is the caller's business.
    """
    device = next(model.parameters()).device
    rows = torch.tensor([query.row for query in queries], device=device)
    codes, scale = stack_sam(features)
    sam = dequantise(codes.to(device), None if scale is None else scale.to(device))
    clip = torch.from_numpy(np.stack([f.clip for f in features])).to(device).float()
    emotions = torch.tensor([emotion_index(query.emotion) for query in queries], device=device)
    found = model.segment(sam, rows, emotions)
    texts = _explain(model, found, clip[rows] if found.region is None else found.region, queries, params)
    frame = Frame(model.config.image_size, side=4 * model.config.grid)
    predictions = []
    probabilities = found.mask_logits.float().sigmoid().cpu().numpy()
    for number, query in enumerate(queries):
        height, width = frame.valid_size(features[query.row].input_height, features[query.row].input_width)
        predictions.append(Prediction(probabilities[number, :height, :width], texts[number]))
    return predictions


def _explain(
    model: EmoSEM, found: Segmentation, visual: Tensor, queries: Sequence[BatchQuery], params: PredictParams
) -> list[tuple[str, ...]]:
    """The explanations of each query, one per seed, all drawn together.

    Raises `UserError` for a model without tokenizer.
    """
    if model.tokenizer is None:
        raise UserError("the model was saved without its tokenizer; it can segment, but not explain")
    draws = len(params.seeds)
    of_query = torch.arange(len(queries), device=visual.device).repeat_interleave(draws)
    rows = model.captioner.generate(
        found.prefix[of_query],
        None if found.prefix_mask is None else found.prefix_mask[of_query],
        visual[of_query],
        [int(fingerprint(seed, q.key, q.emotion)[:15], 16) for q in queries for seed in params.seeds],
        max_new_tokens=params.max_new_tokens,
        top_p=params.top_p,
        temperature=params.temperature,
    )
    texts = [decode_text(model.tokenizer, row) for row in rows]
    return [tuple(texts[start : start + draws]) for start in range(0, len(texts), draws)]
