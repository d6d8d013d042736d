"""The networks behind emotion alignment (EA), and the classifier made of one of them and its words.

``lstm`` has the shape of ArtEmis's: an MLP over word embeddings, one LSTM, the maximum over time, an MLP.
``transformer`` is a small pre-norm encoder with the same maximum and the same last MLP.

What padding does to that maximum is one fixed rule per network, so that a sentence's answer does not depend
on what it was batched with. `none`: the maximum runs over real words only. `zeros`: a zero state joins the
words of every sentence, as it does in ArtEmis's batches for every sentence but the longest.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import nn

from model.alignment.words import TOKENISERS, Tokens
from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.common.sums import check_sum, write_sums

Architecture = Literal["lstm", "transformer"]
Padding = Literal["none", "zeros"]
HEAD = 100
"""Width of the last MLP's hidden layer, as in ArtEmis."""
FILES = ("model.safetensors", "vocabulary.json", "config.json")
"""What a saved classifier is made of."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes and rules of a classifier, as saved beside its weights."""

    num_words: int
    embedding: int
    hidden: int
    dropout: float
    max_words: int
    classes: tuple[str, ...] = ALL_EMOTIONS
    architecture: Architecture = "lstm"
    layers: int = 1
    """Of the transformer."""
    heads: int = 1
    """Of the transformer."""
    padding: Padding = "none"
    unknown: int = 1
    """Id of words outside the vocabulary; 0 is padding."""
    tokens: Tokens = "plain"
    """How sentences become words, see `alignment_words`."""


def _head(config: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.hidden, HEAD),
        nn.BatchNorm1d(HEAD),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(HEAD, len(config.classes)),
    )


def max_over_words(states_BTC: torch.Tensor, ids_BT: torch.Tensor, padding: Padding) -> torch.Tensor:
    """Maximum over a sentence's words, (B, C), by the rule of `padding` whatever the batch's length."""
    top = states_BTC.masked_fill((ids_BT == 0).unsqueeze(-1), float("-inf")).amax(dim=1)
    return top.clamp(min=0) if padding == "zeros" else top


class EmotionLSTM(nn.Module):
    """Word ids (B, T) int64, right-padded with 0, to logits (B, 9) over `ALL_EMOTIONS`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        hidden, dropout = config.hidden, config.dropout
        self.padding = config.padding
        self.embedding = nn.Embedding(config.num_words, config.embedding, padding_idx=0)
        self.encoder = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(config.embedding, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
        )
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = _head(config)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Logits; a row needs at least one word. Trailing padding does not change them."""
        states_BTC, _ = self.lstm(self.encoder(self.embedding(ids_BT)))
        logits: torch.Tensor = self.head(max_over_words(states_BTC, ids_BT, self.padding))
        return logits


class EmotionTransformer(nn.Module):
    """As `EmotionLSTM`, with pre-norm self-attention over words and learned positions."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.padding = config.padding
        self.embedding = nn.Embedding(config.num_words, hidden, padding_idx=0)
        self.positions = nn.Embedding(config.max_words, hidden)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            hidden,
            config.heads,
            dim_feedforward=2 * hidden,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False
        )
        self.head = _head(config)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Logits; a row needs at least one word and at most `max_words`. Padding does not change them."""
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        x_BTC = self.dropout(self.embedding(ids_BT) + self.positions(places_T))
        states_BTC = self.encoder(x_BTC, src_key_padding_mask=ids_BT == 0)
        logits: torch.Tensor = self.head(max_over_words(states_BTC, ids_BT, self.padding))
        return logits


def build_network(config: NetworkConfig) -> nn.Module:
    """A fresh network of `config.architecture`. Raises `ValueError` for another name."""
    kinds: dict[str, type[nn.Module]] = {"lstm": EmotionLSTM, "transformer": EmotionTransformer}
    if config.architecture not in kinds:
        raise ValueError(f"architecture {config.architecture!r} is none of {', '.join(kinds)}")
    return kinds[config.architecture](config)


class EmotionClassifier:
    """The network and its vocabulary: sentences in, positions in `ALL_EMOTIONS` out."""

    def __init__(
        self,
        network: nn.Module,
        config: NetworkConfig,
        vocabulary: Sequence[str],
        training: dict[str, Any] | None = None,
    ) -> None:
        self.network = network.eval()
        self.config = config
        self.training = training or {}
        """Counts and held-out accuracies of its training, see `alignment.build`."""
        self.vocabulary = tuple(vocabulary)
        """Word of each id; 0 is padding."""
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}
        self._words = TOKENISERS[config.tokens]

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Word ids, int64 (N, longest), right-padded with 0. A sentence without words is one unknown word."""
        unknown = self.config.unknown
        rows = [
            [self._ids.get(word, unknown) for word in self._words(sentence)[: self.config.max_words]]
            or [unknown]
            for sentence in sentences
        ]
        ids = torch.zeros((len(rows), max(map(len, rows), default=1)), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    @torch.inference_mode()
    def probabilities(self, sentences: Sequence[str], batch: int = 512) -> np.ndarray:
        """float32 (N, 9), each row over `ALL_EMOTIONS`."""
        device = next(self.network.parameters()).device
        parts = [torch.zeros((0, len(ALL_EMOTIONS)))]
        for start in range(0, len(sentences), batch):
            ids = self.encode(sentences[start : start + batch]).to(device)
            parts.append(self.network(ids).softmax(dim=1).cpu())
        return torch.cat(parts).numpy()

    def classify(self, sentences: Sequence[str]) -> np.ndarray:
        """int64 (N,): position in `ALL_EMOTIONS` of the most probable answer."""
        found: np.ndarray = self.probabilities(sentences).argmax(axis=1).astype(np.int64)
        return found

    def save(self, folder: Path) -> None:
        """Write model.safetensors, vocabulary.json, config.json and, last, their SHA256SUMS."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        write_bytes(folder / "model.safetensors", safetensors.torch.save(state))
        write_json(folder / "vocabulary.json", list(self.vocabulary))
        config = dataclasses.asdict(self.config) | {"training": self.training}
        write_json(folder / "config.json", config)
        write_sums(folder, FILES)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "EmotionClassifier":
        """Read what `save` wrote. Raises `UserError` when it is not there, damaged, or not one classifier."""
        try:
            for name in FILES:
                (folder / name).stat()
                check_sum(folder / name, "run the alignment step again")
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            training = values.pop("training", None)
            config = NetworkConfig(**values | {"classes": tuple(values["classes"])})
            vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
            network = build_network(config)
            network.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        except FileNotFoundError as error:
            raise UserError(f"{error.filename or folder} does not exist; run the alignment step") from None
        except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
            raise UserError(f"the emotion classifier in {folder} cannot be read: {error}") from None
        if config.classes != ALL_EMOTIONS or len(vocabulary) != config.num_words:
            raise UserError(f"the emotion classifier in {folder} has other classes or words than its weights")
        return cls(network.to(device), config, vocabulary, training)
