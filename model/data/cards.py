"""What the JSON members say about a split's samples, read once an artwork: sizes, weights, tokens."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.data.cached_features import read_input_size
from model.emosem.captioner import encode_texts
from model.emosem.losses import IGNORE
from pipeline.common.emotions import EMOTIONS
from pipeline.reader.index import Index


class Cards:
    """Filled artwork by artwork, by any number of threads: an artwork is the same whoever reads it.

    About 120 bytes a sample: 50 MB for ArtEmis.
    """

    def __init__(
        self, keys: Sequence[str], table: np.ndarray, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        """Nothing is read yet.

        Args:
            keys: of the artworks.
            table: `Samples.table`, in the order of its artworks.
            tokenizer, max_tokens: see `encode_texts`.
        """
        self.keys, self.table, self.tokenizer, self.max_tokens = keys, table, tokenizer, max_tokens
        self.input_sizes = np.zeros((len(keys), 2), np.int32)
        """(artworks, 2): height and width of the picture inside SAM's padded input, pixels."""
        self.weights = np.ones(len(table))
        """float64 (samples,): what reviewers left a sample's mask; 1 without review."""
        self._tokens = np.zeros((len(table), max_tokens), np.int32)
        self._lengths = np.zeros(len(table), np.int32)
        self._starts = np.searchsorted(table[:, 0], np.arange(len(keys) + 1))
        self._is_read = np.zeros(len(keys), np.bool_)

    def require(self, index: Index, artworks: Iterable[int]) -> None:
        """Read the cards of artworks that were not read yet; each of their sentences is tokenised here."""
        for artwork in artworks:
            if not self._is_read[artwork]:
                self._read(index, artwork)

    def texts(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens and labels of samples (T,), both int64 (T, L): end-of-text and `IGNORE` behind the end."""
        lengths = self._lengths[samples]
        tokens = self._tokens[samples, : lengths.max()].astype(np.int64)
        inside = np.arange(tokens.shape[1]) < lengths[:, None]
        return torch.from_numpy(tokens), torch.from_numpy(np.where(inside, tokens, IGNORE))

    def _read(self, index: Index, artwork: int) -> None:
        key, rows = self.keys[artwork], slice(self._starts[artwork], self._starts[artwork + 1])
        emotions = json.loads(index.read(key, "masks/json"))["emotions"]
        cards = [(emotions[EMOTIONS[emotion]], number) for _, emotion, number in self.table[rows].tolist()]
        sentences = [card["utterances"][number] for card, number in cards]
        for row, words in enumerate(encode_texts(self.tokenizer, sentences, self.max_tokens), rows.start):
            self._tokens[row] = words[-1]
            self._tokens[row, : len(words)] = words
            self._lengths[row] = len(words)
        self.weights[rows] = [card.get("weight", 1.0) for card, _ in cards]
        self.input_sizes[artwork] = read_input_size(index, key)
        self._is_read[artwork] = True  # last: another thread may be looking
