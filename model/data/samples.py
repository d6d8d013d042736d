"""Training samples, read by index from the memory-mapped shards.

A sample is one (artwork, emotion, utterance).
"""

import json
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from model.data.batch import Batch, pad_texts
from model.data.cached_features import read_cached_features, read_input_size
from model.data.frame import Frame
from model.emosem.captioner import encode_texts
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

    def __getitem__(self, numbers: Sequence[int] | np.ndarray) -> Batch:
        """The batch of these samples, read and decoded. Raises `UserError` as `read_features`."""
        table = self.table[np.asarray(numbers)]
        artworks, artwork_of = np.unique(table[:, 0], return_inverse=True)
        coded, query = np.unique(artwork_of * len(EMOTIONS) + table[:, 1], return_inverse=True)
        pairs = np.stack(np.divmod(coded, len(EMOTIONS)), axis=1)
        keys = [self.keys[a] for a in artworks]
        sam, sam_scale, clip = read_cached_features(self.index, keys if self.features else [])
        sizes = [read_input_size(self.index, key) for key in keys]
        words = [json.loads(self.index.read(key, "masks/json"))["emotions"] for key in keys]
        trust = [words[a][EMOTIONS[e]].get("weight", 1.0) for a, e in pairs]  # less than 1 by review
        targets = np.zeros((len(pairs), self.frame.side, self.frame.side), dtype=np.uint8)
        for target, (a, e) in zip(targets, pairs, strict=True):
            self._read_target(keys[a], EMOTIONS[e], sizes[a], target)
        texts = [
            words[a][EMOTIONS[e]]["utterances"][number]
            for a, (_, e, number) in zip(artwork_of, table, strict=True)
        ]
        tokens, labels = pad_texts(encode_texts(self.tokenizer, texts, self.max_tokens))
        valid = np.zeros((len(artworks), self.frame.side, self.frame.side), dtype=np.bool_)
        for i, size in enumerate(sizes):
            height, width = self.frame.valid_size(*size)
            valid[i, :height, :width] = True
        return Batch(
            artworks=torch.from_numpy(artworks.astype(np.int64)),
            sam=sam,
            sam_scale=sam_scale,
            clip=clip,
            valid=torch.from_numpy(valid),
            rows=torch.from_numpy(pairs[:, 0].astype(np.int64)),
            emotion=torch.from_numpy(pairs[:, 1].astype(np.int64)),
            target=torch.from_numpy(targets),
            weight=torch.from_numpy((np.bincount(query) * trust).astype(np.float32)),
            query=torch.from_numpy(query),
            tokens=tokens,
            labels=labels,
        )

    def _read_target(self, key: str, emotion: str, input_size: tuple[int, int], out: np.ndarray) -> None:
        data = np.frombuffer(self.index.view(key, f"{emotion}.png"), dtype=np.uint8)
        mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise UserError(f"mask {key}.{emotion}.png is damaged; run the masks and shards steps again")
        self.frame.place(mask, *input_size, out)
        if self.binarise is not None:
            np.multiply(out > 255 * self.binarise, 255, out=out, casting="unsafe")
