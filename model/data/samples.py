"""Training samples, read by index from the memory-mapped shards.

A sample is one (artwork, emotion, utterance).
"""

import copy
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from model.data.batch import Batch
from model.data.batch_memory import BatchMemory
from model.data.cached_features import read_cached_features
from model.data.cards import Cards
from model.data.decoded_masks import DecodedMasks
from model.data.frame import Frame
from pipeline.common.emotions import EMOTIONS, emotion_index
from pipeline.common.errors import UserError
from pipeline.reader.index import Index


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
        """Read the split's outline; bytes are read when a batch is, by any number of threads at once.

        Args:
            index: of the shards.
            split: train, val, test or rest.
            tokenizer, max_tokens: see `encode_texts`.
            frame: where masks go.
            binarise: pseudo-masks above this become 1, others 0; None keeps them soft.
            features: False leaves the grids out of batches, for `model.resident`.
        """
        self.features = features
        self.index, self.tokenizer, self.frame, self.binarise = index, tokenizer, frame, binarise
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
        self._max_tokens = max_tokens
        self._forget()

    def _forget(self) -> None:
        self._cards = Cards(self.keys, self.table, self.tokenizer, self._max_tokens)
        self._masks = DecodedMasks()

    def unread(self) -> "Samples":
        """The same samples as before their first epoch, from an index on this machine: all bytes are checked
        again, cards and masks are read from the shards."""
        fresh = copy.copy(self)
        fresh.index = Index.load(self.index.folder)
        fresh._forget()
        return fresh

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, numbers: Sequence[int] | np.ndarray) -> Batch:
        """The batch of these samples in new memory, see `read`."""
        return self.read(numbers, BatchMemory())

    def read(self, numbers: Sequence[int] | np.ndarray, memory: BatchMemory) -> Batch:
        """The batch of these samples, its large parts in `memory`. Raises `UserError` as `read_features`."""
        numbers = np.asarray(numbers)
        table = self.table[numbers]
        artworks, artwork_of = np.unique(table[:, 0], return_inverse=True)
        coded, first, query = np.unique(
            artwork_of * len(EMOTIONS) + table[:, 1], return_index=True, return_inverse=True
        )
        rows, emotions = np.divmod(coded, len(EMOTIONS))
        keys = [self.keys[a] for a in artworks]
        sam, sam_scale, clip = read_cached_features(self.index, keys if self.features else [], memory)
        self._cards.require(self.index, artworks.tolist())
        tokens, labels = self._cards.texts(numbers)
        trust = self._cards.weights[numbers[first]]  # less than 1 by review
        return Batch(
            artworks=torch.from_numpy(artworks.astype(np.int64)),
            sam=sam,
            sam_scale=sam_scale,
            clip=clip,
            valid=self._valid(artworks),
            rows=torch.from_numpy(rows.astype(np.int64)),
            emotion=torch.from_numpy(emotions.astype(np.int64)),
            target=self._targets(artworks[rows], emotions, memory),
            weight=torch.from_numpy((np.bincount(query) * trust).astype(np.float32)),
            query=torch.from_numpy(query),
            tokens=tokens,
            labels=labels,
        )

    def _valid(self, artworks: np.ndarray) -> Tensor:
        valid = np.zeros((len(artworks), self.frame.side, self.frame.side), dtype=np.bool_)
        for own, size in zip(valid, self._cards.input_sizes[artworks].tolist(), strict=True):
            height, width = self.frame.valid_size(*size)
            own[:height, :width] = True
        return torch.from_numpy(valid)

    def _targets(self, artworks: np.ndarray, emotions: np.ndarray, memory: BatchMemory) -> Tensor:
        targets = memory.empty(
            "target", (len(artworks), self.frame.side, self.frame.side), np.dtype(np.uint8)
        )
        for out, artwork, emotion in zip(targets.numpy(), artworks.tolist(), emotions.tolist(), strict=True):
            number = artwork * len(EMOTIONS) + emotion
            if not self._masks.read(number, out):
                self._decode_target(artwork, EMOTIONS[emotion], out)
                self._masks.keep(number, out)
        return targets

    def _decode_target(self, artwork: int, emotion: str, out: np.ndarray) -> None:
        key = self.keys[artwork]
        data = np.frombuffer(self.index.view(key, f"{emotion}.png"), dtype=np.uint8)
        mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise UserError(f"mask {key}.{emotion}.png is damaged; run the masks and shards steps again")
        height, width = self._cards.input_sizes[artwork].tolist()
        out[:] = 0
        self.frame.place(mask, height, width, out)
        if self.binarise is not None:
            np.multiply(out > 255 * self.binarise, 255, out=out, casting="unsafe")
