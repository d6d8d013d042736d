"""Training samples, read by index from the memory-mapped shards.

A sample is one (artwork, emotion, utterance). A batch holds each of its artworks' features once, each of its
(artwork, emotion) masks once, and every utterance: the decoder then answers a query once however many people
said something about it.

Shapes: B artworks, Q queries (artwork, emotion), T texts, L words, K patch tokens; H, W the decoder's frame.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from model.captioner import encode_text
from model.losses import IGNORE
from pipeline.emotions import EMOTIONS, emotion_index
from pipeline.params import UserError
from pipeline.shard_index import Index
from pipeline.storage import load_npy

Visit = Literal["utterance", "pair"]


@dataclass(frozen=True)
class Frame:
    """SAM's padded square: `image_size` pixels a side as input, `side` pixels a side as mask logits."""

    image_size: int
    side: int

    def valid_size(self, input_height: int, input_width: int) -> tuple[int, int]:
        """(height, width) in logit pixels of a picture of this size in the input; the rest is padding."""
        scale = self.side / self.image_size
        return max(1, round(input_height * scale)), max(1, round(input_width * scale))

    def place(self, mask: np.ndarray, input_height: int, input_width: int) -> np.ndarray:
        """A uint8 mask (h, w) of the artwork, any size, as float32 (side, side) in [0, 1], padding 0."""
        height, width = self.valid_size(input_height, input_width)
        shrinks = height * width < mask.size
        resized = cv2.resize(
            mask.astype(np.float32) / 255,
            (width, height),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        framed = np.zeros((self.side, self.side), dtype=np.float32)
        framed[:height, :width] = resized
        return framed


class Features(NamedTuple):
    """What the frozen encoders saw in one artwork."""

    sam: np.ndarray
    """float (C, grid, grid), or int8 with `sam_scale`."""
    clip: np.ndarray
    """float (K, C), patch tokens only."""
    input_height: int
    """Of the picture inside SAM's padded input, pixels."""
    input_width: int
    sam_scale: np.ndarray | None = None
    """float32 (C,) with int8: the grid is ``sam * sam_scale``."""


def read_features(index: Index, key: str) -> Features:
    """Features of an artwork, in the dtypes they are stored in.

    Raises `KeyError` when it has none, `UserError` when its shard is damaged or lacks one of the two grids.
    """
    about = json.loads(index.read(key, "features/json"))
    try:
        sam, clip = (load_npy(index.read(key, member)) for member in ("sam.npy", "clip.npy"))
        scale = load_npy(index.read(key, "sam_scale.npy")) if sam.dtype == np.int8 else None
    except KeyError as error:
        raise UserError(
            f"{error.args[0]}: a model needs both grids. Set features.sam_dtype and clip_dtype to something "
            "else than none, then run the features and shards steps"
        ) from None
    if math.isqrt(len(clip)) ** 2 != len(clip):  # the class token stands before a square of patches
        clip = clip[1:]
    height, width = about["sam"]["input_size"]
    return Features(sam, clip, height, width, scale)


def stack_sam(features: Sequence[Features]) -> tuple[Tensor, Tensor | None]:
    """SAM's grids as stored, (B, C, grid, grid), and with int8 their scales, float32 (B, C).

    Raises `UserError` when some are int8 and others are not.
    """
    quantised = [f.sam_scale is not None for f in features]
    if any(quantised) != all(quantised):
        raise UserError("the features hold int8 and float16 grids; run the features and shards steps again")
    sam = torch.from_numpy(np.stack([f.sam for f in features]))
    scales = [f.sam_scale for f in features if f.sam_scale is not None]
    return sam, torch.from_numpy(np.stack(scales).astype(np.float32)) if scales else None


def dequantise(sam: Tensor, scale: Tensor | None) -> Tensor:
    """What `stack_sam` gives as float32 (B, C, grid, grid), on its device: int8 crosses the bus as int8."""
    return sam.float() if scale is None else sam * scale[:, :, None, None]


@dataclass(frozen=True)
class Batch:
    """One micro-batch. Fields with a suffix of Q, T are one row per query, per text."""

    sam: Tensor
    """(B, C, grid, grid) as stored, float16 or int8; float32 after `to`."""
    sam_scale: Tensor | None
    """(B, C) float32 of an int8 `sam`; None after `to`."""
    clip: Tensor
    """(B, K, C) float16 as stored; float32 after `to`."""
    valid: Tensor
    """(B, H, W) bool, False on the padding of the decoder's frame."""
    rows: Tensor
    """(Q,) int64, each query's artwork."""
    emotion: Tensor
    """(Q,) int64, its emotion."""
    target: Tensor
    """(Q, H, W) float32, its pseudo-mask."""
    weight: Tensor
    """(Q,) float32, its number of texts in the batch."""
    query: Tensor
    """(T,) int64, each text's query."""
    tokens: Tensor
    """(T, L) int64 ids, end-of-text behind the end."""
    labels: Tensor
    """(T, L) int64, `IGNORE` behind the end."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, its grids widened to float32 there."""
        there = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        sam = dequantise(there.sam, there.sam_scale)
        return dataclasses.replace(there, sam=sam, sam_scale=None, clip=there.clip.float())

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; called by torch's loader."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = {name: function(value) for name, value in values.items() if value is not None}
        return dataclasses.replace(self, **changed)


class Samples(Dataset[Batch]):
    """All (artwork, emotion, utterance) of a split; an item is the batch of the sample numbers asked for."""

    def __init__(
        self,
        index: Index,
        split: str,
        tokenizer: PreTrainedTokenizerBase,
        frame: Frame,
        *,
        max_tokens: int,
        binarise: float | None = None,
    ) -> None:
        """Read the split's outline; bytes are read when a batch is.

        Args:
            index: of the shards.
            split: train, val, test or rest.
            tokenizer, max_tokens: see `encode_text`.
            frame: where masks go.
            binarise: pseudo-masks above this become 1, others 0; None keeps them soft.
        """
        self.index, self.tokenizer, self.frame = index, tokenizer, frame
        self.max_tokens, self.binarise = max_tokens, binarise
        rows = [row for row in index.rows(split) if row.emotions]
        self.keys = [row.key for row in rows]
        self.table = np.array(
            [
                (artwork, emotion_index(emotion), number)
                for artwork, row in enumerate(rows)
                for emotion, count in zip(row.emotions, row.utterance_counts, strict=True)
                for number in range(count)
            ],
            dtype=np.int32,
        ).reshape(-1, 3)
        """(samples, 3): artwork, emotion, number of the utterance."""
        if not len(self.table):
            raise UserError(f"{index.folder / 'index.parquet'} has no {split} utterance to learn from")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, numbers: Sequence[int]) -> Batch:
        """The batch of these samples, read and decoded."""
        table = self.table[np.asarray(numbers)]
        artworks, artwork_of = np.unique(table[:, 0], return_inverse=True)
        pairs, query = np.unique(np.stack([artwork_of, table[:, 1]], axis=1), axis=0, return_inverse=True)
        features = [read_features(self.index, self.keys[a]) for a in artworks]
        words = [json.loads(self.index.read(self.keys[a], "masks/json"))["emotions"] for a in artworks]
        targets = np.stack([self._target(self.keys[artworks[a]], EMOTIONS[e], features[a]) for a, e in pairs])
        texts = [
            encode_text(self.tokenizer, words[a][EMOTIONS[e]]["utterances"][number], self.max_tokens)
            for a, (_, e, number) in zip(artwork_of, table, strict=True)
        ]
        tokens, labels = pad_texts(texts)
        valid = np.zeros((len(artworks), self.frame.side, self.frame.side), dtype=np.bool_)
        for i, f in enumerate(features):
            height, width = self.frame.valid_size(f.input_height, f.input_width)
            valid[i, :height, :width] = True
        sam, sam_scale = stack_sam(features)
        return Batch(
            sam=sam,
            sam_scale=sam_scale,
            clip=torch.from_numpy(np.stack([f.clip for f in features])),
            valid=torch.from_numpy(valid),
            rows=torch.from_numpy(pairs[:, 0].astype(np.int64)),
            emotion=torch.from_numpy(pairs[:, 1].astype(np.int64)),
            target=torch.from_numpy(targets),
            weight=torch.from_numpy(np.bincount(query.ravel(), minlength=len(pairs)).astype(np.float32)),
            query=torch.from_numpy(query.ravel().astype(np.int64)),
            tokens=tokens,
            labels=labels,
        )

    def _target(self, key: str, emotion: str, features: Features) -> np.ndarray:
        data = np.frombuffer(self.index.view(key, f"{emotion}.png"), dtype=np.uint8)
        mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise UserError(f"mask {key}.{emotion}.png is damaged; run the masks and shards steps again")
        target = self.frame.place(mask, features.input_height, features.input_width)
        return target if self.binarise is None else (target > self.binarise).astype(np.float32)


def pad_texts(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens and labels, both (T, L) int64, of texts of several lengths (none empty)."""
    length = max(len(text) for text in texts)
    tokens = torch.tensor([[*text, *[text[-1]] * (length - len(text))] for text in texts])
    labels = torch.tensor([[*text, *[IGNORE] * (length - len(text))] for text in texts])
    return tokens, labels


def epoch_batches(
    table: np.ndarray, batch_size: int, *, seed: int, epoch: int, window: int, visit: Visit
) -> list[np.ndarray]:
    """Sample numbers of every batch of an epoch: a function of (seed, epoch) alone, so seeking is free.

    Args:
        table: (samples, 3) of `Samples`, sorted by artwork.
        batch_size: samples in a batch; the last may be smaller.
        window: artworks whose samples are mixed. 1 keeps an artwork's samples together, so that its features
            are read and mixed once; more artworks in a batch make its gradient less of one picture.
        visit: utterance: each sample once. pair: each (artwork, emotion) once, with the next of its
            utterances in every epoch.

    Returns:
        Arrays of int64; together exactly the samples that the epoch visits, each once.
    """
    rng = np.random.default_rng([seed, epoch])
    numbers = np.arange(len(table))
    if visit == "pair":
        _, pair, counts = np.unique(table[:, :2], axis=0, return_inverse=True, return_counts=True)
        numbers = numbers[table[:, 2] == epoch % counts[pair.ravel()]]
    artworks = np.unique(table[:, 0])
    place = np.empty(artworks.max() + 1, dtype=np.int64)
    place[artworks] = rng.permutation(len(artworks)) // window
    order = np.lexsort((rng.permutation(len(numbers)), place[table[numbers, 0]]))
    ordered = numbers[order]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
