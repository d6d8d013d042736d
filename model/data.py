"""Training samples, read by index from the memory-mapped shards.

A sample is one (artwork, emotion, utterance). A batch holds each of its artworks' features once, each of its
(artwork, emotion) masks once, and every utterance: the decoder then answers a query once however many people
said something about it.

Shapes: B artworks, Q queries (artwork, emotion), T texts, L words, K patch tokens; H, W the decoder's frame.
"""

import dataclasses
import io
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
Counted = Literal["queries", "artworks"]
MIXED = "the features hold int8 and float16 grids; run the features and shards steps again"
_HEADER = 1024
"""Bytes that hold the header of a small .npy file of version 1.0."""


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
        framed = np.zeros((self.side, self.side), dtype=np.float32)
        inside = framed[:height, :width]
        if mask.shape == inside.shape:  # as stored by default, for official sizes
            np.divide(mask, np.float32(255), out=inside)
            return framed
        shrinks = height * width < mask.size
        inside[:] = cv2.resize(
            mask.astype(np.float32) / 255,
            (width, height),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
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
    """Features of an artwork, in the dtypes they are stored in: read-only arrays on the memory map.

    Raises `KeyError` when it has none, `UserError` when its shard is damaged or lacks one of the two grids.
    """
    size = read_input_size(index, key)
    try:
        sam, clip = (_array(index.view(key, member)) for member in ("sam.npy", "clip.npy"))
        scale = _array(index.view(key, "sam_scale.npy")) if sam.dtype == np.int8 else None
    except KeyError as error:
        raise UserError(
            f"{error.args[0]}: a model needs both grids. Set features.sam_dtype and clip_dtype to something "
            "else than none, then run the features and shards steps"
        ) from None
    if math.isqrt(len(clip)) ** 2 != len(clip):  # the class token stands before a square of patches
        clip = clip[1:]
    return Features(sam, clip, *size, scale)


def read_input_size(index: Index, key: str) -> tuple[int, int]:
    """(height, width) of an artwork's picture inside SAM's padded input, pixels."""
    height, width = json.loads(index.read(key, "features/json"))["sam"]["input_size"]
    return height, width


def _array(data: memoryview) -> np.ndarray:
    """The array in the bytes of a .npy file, not copied: an epoch reads every grid, so copies count."""
    head = io.BytesIO(data[:_HEADER])
    if np.lib.format.read_magic(head) != (1, 0):
        return load_npy(bytes(data))
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype.hasobject:
        return load_npy(bytes(data))  # refuses objects
    return np.frombuffer(data, dtype, math.prod(shape), head.tell()).reshape(shape)


def stack_sam(features: Sequence[Features]) -> tuple[Tensor, Tensor | None]:
    """SAM's grids as stored, (B, C, grid, grid), and with int8 their scales, float32 (B, C).

    Raises `UserError` when some are int8 and others are not.
    """
    quantised = [f.sam_scale is not None for f in features]
    if any(quantised) != all(quantised):
        raise UserError(MIXED)
    sam = torch.from_numpy(np.stack([f.sam for f in features]))
    scales = [f.sam_scale for f in features if f.sam_scale is not None]
    return sam, torch.from_numpy(np.stack(scales).astype(np.float32)) if scales else None


def dequantise(sam: Tensor, scale: Tensor | None) -> Tensor:
    """What `stack_sam` gives as float32 (B, C, grid, grid), on its device: int8 crosses the bus as int8."""
    return sam.float() if scale is None else sam * scale[:, :, None, None]


def read_grids(index: Index, keys: Sequence[str]) -> tuple[Tensor, Tensor | None, Tensor]:
    """`Batch`'s ``sam``, ``sam_scale`` and ``clip`` of artworks, as stored; empty of none."""
    if not keys:
        return torch.empty(0), None, torch.empty(0)
    features = [read_features(index, key) for key in keys]
    return *stack_sam(features), torch.from_numpy(np.stack([f.clip for f in features]))


@dataclass(frozen=True)
class Batch:
    """One micro-batch."""

    artworks: Tensor
    """(B,) int64 numbers in `Samples.keys`."""
    sam: Tensor
    """(B, C, grid, grid) as stored, float16 or int8; float32 once widened. Empty where features are resident
    on the device, until they are gathered."""
    sam_scale: Tensor | None
    """(B, C) float32 of an int8 `sam`; None once widened."""
    clip: Tensor
    """(B, K, C) float16 as stored; float32 once widened. Empty as `sam` is."""
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
        return self.moved(device).widened()

    def moved(self, device: torch.device) -> "Batch":
        """The batch on a device, as it is; from page-locked memory without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def widened(self) -> "Batch":
        """The batch with grids of float32."""
        sam = dequantise(self.sam, self.sam_scale)
        return dataclasses.replace(self, sam=sam, sam_scale=None, clip=self.clip.float())

    def padded(self, texts: int, words: int, counted: Counted) -> "Batch":
        """The batch in one of four shapes, for compiled steps; its losses and gradients stay what they are.

        Texts are filled up to `texts`, of `words` each, without labels. Queries without weight, about the
        first artwork, fill up to a quarter, half, three quarters or all of `texts`; artworks of zeros as
        well. Dropout draws other numbers than for the batch itself.

        Args:
            counted: what a model's time depends on. queries: as many artworks as queries; artworks: these
                alone count in quarters, and queries are as many as texts.
        """
        quarter = math.ceil(texts / 4)
        counts = {"queries": len(self.rows), "artworks": len(self.artworks)}
        size = min(texts, math.ceil(counts[counted] / quarter) * quarter)
        sizes = dict.fromkeys(("artworks", "sam", "sam_scale", "clip", "valid"), size)
        queries = size if counted == "queries" else texts
        sizes |= dict.fromkeys(("rows", "emotion", "target", "weight"), queries)
        sizes |= dict.fromkeys(("query", "tokens", "labels"), texts)
        widths, fills = {"tokens": words, "labels": words}, {"labels": IGNORE}
        changed = {
            name: _filled(value, sizes[name], widths.get(name), fills.get(name, 0))
            for name in sizes
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **changed)

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; called by torch's loader."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = {name: function(value) for name, value in values.items() if value is not None}
        return dataclasses.replace(self, **changed)


def _filled(values: Tensor, rows: int, columns: int | None, fill: int) -> Tensor:
    """`values` at the start of a tensor of `rows`, and `columns` where given, that holds `fill` elsewhere."""
    shape = [rows, *values.shape[1:]]
    if columns is not None:
        shape[1] = columns
    if list(values.shape) == shape:
        return values
    full = values.new_full(shape, fill)
    full[tuple(slice(n) for n in values.shape)] = values
    return full


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
        features: bool = True,
    ) -> None:
        """Read the split's outline; bytes are read when a batch is.

        Args:
            index: of the shards.
            split: train, val, test or rest.
            tokenizer, max_tokens: see `encode_text`.
            frame: where masks go.
            binarise: pseudo-masks above this become 1, others 0; None keeps them soft.
            features: False leaves the grids out of batches, for `model.resident`.
        """
        self.features = features
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
        keys = [self.keys[a] for a in artworks]
        sizes = [read_input_size(self.index, key) for key in keys]
        words = [json.loads(self.index.read(key, "masks/json"))["emotions"] for key in keys]
        targets = np.stack([self._target(keys[a], EMOTIONS[e], sizes[a]) for a, e in pairs])
        texts = [
            encode_text(self.tokenizer, words[a][EMOTIONS[e]]["utterances"][number], self.max_tokens)
            for a, (_, e, number) in zip(artwork_of, table, strict=True)
        ]
        tokens, labels = pad_texts(texts)
        valid = np.zeros((len(artworks), self.frame.side, self.frame.side), dtype=np.bool_)
        for i, size in enumerate(sizes):
            height, width = self.frame.valid_size(*size)
            valid[i, :height, :width] = True
        sam, sam_scale, clip = read_grids(self.index, keys if self.features else [])
        return Batch(
            artworks=torch.from_numpy(artworks.astype(np.int64)),
            sam=sam,
            sam_scale=sam_scale,
            clip=clip,
            valid=torch.from_numpy(valid),
            rows=torch.from_numpy(pairs[:, 0].astype(np.int64)),
            emotion=torch.from_numpy(pairs[:, 1].astype(np.int64)),
            target=torch.from_numpy(targets),
            weight=torch.from_numpy(np.bincount(query.ravel(), minlength=len(pairs)).astype(np.float32)),
            query=torch.from_numpy(query.ravel().astype(np.int64)),
            tokens=tokens,
            labels=labels,
        )

    def _target(self, key: str, emotion: str, input_size: tuple[int, int]) -> np.ndarray:
        data = np.frombuffer(self.index.view(key, f"{emotion}.png"), dtype=np.uint8)
        mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise UserError(f"mask {key}.{emotion}.png is damaged; run the masks and shards steps again")
        target = self.frame.place(mask, *input_size)
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
