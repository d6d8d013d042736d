"""One micro-batch: what the trainer's steps take.

A batch holds each of its artworks' features once, each of its (artwork, emotion) masks once, and every
utterance: the decoder then answers a query once however many people said something about it.

Shapes: B artworks, Q queries (artwork, emotion), T texts, L words, K patch tokens; H, W the decoder's frame.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.data.cached_features import dequantise
from model.emosem.losses import IGNORE

Counted = Literal["queries", "artworks"]


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
    """(Q, H, W) its pseudo-mask: uint8, 255 for 1, as stored; float32 in [0, 1] once widened."""
    weight: Tensor
    """(Q,) float32, its number of texts in the batch, times the weight that reviewers left its mask."""
    query: Tensor
    """(T,) int64, each text's query."""
    tokens: Tensor
    """(T, L) int64 ids, end-of-text behind the end."""
    labels: Tensor
    """(T, L) int64, `IGNORE` behind the end."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, its grids and masks widened to float32 there."""
        return self.moved(device).widened()

    def moved(self, device: torch.device) -> "Batch":
        """The batch on a device, as it is; from page-locked memory without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def widened(self) -> "Batch":
        """The batch with grids and masks of float32; a widened one stays what it is."""
        sam = dequantise(self.sam, self.sam_scale)
        target = self.target.float() / 255 if self.target.dtype == torch.uint8 else self.target
        return dataclasses.replace(self, sam=sam, sam_scale=None, clip=self.clip.float(), target=target)

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
