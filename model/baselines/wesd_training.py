"""WESD's training on the shards and its maps of the APOLO items.

All tokens are held in memory as float16, averaged to 7x7: 75 kB an artwork at width 768, 5 GB for ArtEmis.
Runs on the CPU: a step is a quarter of a GFLOP.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from model.baselines.params import WesdParams
from model.baselines.wesd_network import CELLS, SIDE, UncorrectedAdamW, Wesd, cells_of, target_of, wesd_loss
from model.maps.prediction_writer import ItemPrediction, write_predictions
from pipeline.common.arrays import parse_npy
from pipeline.common.emotions import EMOTIONS, emotion_index
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_bytes
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem

NAME = "wesd"


class Pairs(NamedTuple):
    """What is learned from: N pairs (artwork, emotion) of A artworks."""

    cells: Tensor
    """float16 (A, 49, C)."""
    rows: Tensor
    """int64 (N,), each pair's artwork."""
    emotion: Tensor
    """int64 (N,)."""
    target: Tensor
    """float32 (N, 49)."""


def run_wesd(folder: Path, index: Index, params: WesdParams, items: Sequence[ApoloItem]) -> dict[str, Any]:
    """Train on the train split, predict the items, write maps and ``model.safetensors``; returns counts."""
    pairs = read_pairs(index, "train")
    model, losses = train_wesd(pairs, params)
    known = [item for item in items if item.key in index]
    maps = predict_wesd(model, index, known)
    write_predictions(folder, {NAME: [ItemPrediction(item, item.emotion, map_) for item, map_ in maps]})
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(weights))
    return {
        "items": len(known),
        "without_features": len(items) - len(known),
        "pairs": len(pairs.rows),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "first_loss": round(losses[0], 6),
        "last_loss": round(losses[-1], 6),
    }


def read_pairs(index: Index, split: str) -> Pairs:
    """Tokens and pseudo-masks of a split. Raises `UserError` when it has none, or they are damaged."""
    artworks = [row for row in index.rows(split) if row.emotions]
    if not artworks:
        raise UserError(f"{index.folder / 'index.parquet'} has no {split} artwork to learn from")
    width = read_cells(index, artworks[0].key).shape[1]
    cells = torch.empty((len(artworks), CELLS, width), dtype=torch.float16)
    rows, emotions, targets = [], [], []
    for place, artwork in enumerate(artworks):
        cells[place] = torch.from_numpy(read_cells(index, artwork.key))
        for emotion in artwork.emotions:
            data = np.frombuffer(index.view(artwork.key, f"{emotion}.png"), dtype=np.uint8)
            mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
            if mask is None:
                raise UserError(
                    f"mask {artwork.key}.{emotion}.png is damaged; run the masks and shards steps again"
                )
            rows.append(place)
            emotions.append(emotion_index(emotion))
            targets.append(target_of(mask))
    return Pairs(cells, torch.tensor(rows), torch.tensor(emotions), torch.from_numpy(np.stack(targets)))


def read_cells(index: Index, key: str) -> np.ndarray:
    """Tokens of an artwork, float32 (49, C). Raises `UserError` when it has none, or not the indexed ones."""
    try:
        index.check(key)
        cells = cells_of(parse_npy(index.read(key, "clip.npy")))
        if not np.isfinite(cells).all():
            raise ValueError("its clip.npy has a NaN or an infinity")
        return cells
    except KeyError as error:
        raise UserError(
            f"{error.args[0]}: WESD reads CLIP's tokens. Set features.clip_dtype to float16 and run the "
            "features and shards steps, or set baselines.wesd: null"
        ) from None
    except ValueError as error:
        raise UserError(f"artwork {key}: {error}; run the features and shards steps again") from None


def train_wesd(pairs: Pairs, params: WesdParams) -> tuple[Wesd, list[float]]:
    """A trained network in eval mode, and every epoch's mean loss: functions of pairs and params alone.

    Raises `RunFailed` when an epoch's loss is not finite.
    """
    order = torch.Generator().manual_seed(params.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        model = Wesd(pairs.cells.shape[2])
    batches = -(-len(pairs.rows) // params.batch_size)
    total = params.epochs * batches
    optimizer = new_optimizer(model, params)
    schedule = get_linear_schedule_with_warmup(optimizer, int(params.warmup * total), total)
    losses: list[float] = []
    for _ in range(params.epochs):
        summed = 0.0
        for chosen in torch.randperm(len(pairs.rows), generator=order).split(params.batch_size):
            logits = model.of_emotion(pairs.cells[pairs.rows[chosen]].float(), pairs.emotion[chosen])
            loss = wesd_loss(logits, pairs.target[chosen], params.double_sigmoid)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            summed += float(loss.detach()) * len(chosen)
        if not math.isfinite(summed):
            raise RunFailed(
                f"baselines.wesd: the loss of epoch {len(losses) + 1} is not finite; lower its learning_rate"
            )
        losses.append(summed / len(pairs.rows))
    return model.eval(), losses


def new_optimizer(model: Wesd, params: WesdParams) -> UncorrectedAdamW:
    """The authors' optimiser: biases do not decay."""
    named = list(model.named_parameters())
    biases = [parameter for name, parameter in named if name.endswith("bias")]
    others = [parameter for name, parameter in named if not name.endswith("bias")]
    groups: list[dict[str, Any]] = [
        {"params": others, "weight_decay": params.weight_decay},
        {"params": biases},
    ]
    return UncorrectedAdamW(groups, lr=params.learning_rate)


@torch.no_grad()
def predict_wesd(model: Wesd, index: Index, items: Sequence[ApoloItem]) -> list[tuple[ApoloItem, np.ndarray]]:
    """The items with their maps: float32 (7, 7), probabilities of the item's emotion."""
    probabilities: dict[str, np.ndarray] = {}
    for key in sorted({item.key for item in items}):
        cells = torch.from_numpy(read_cells(index, key))
        logits: Tensor = model(cells[None])[0]
        probabilities[key] = logits.sigmoid().reshape(SIDE, SIDE, len(EMOTIONS)).numpy()
    return [(item, probabilities[item.key][..., emotion_index(item.emotion)]) for item in items]
