"""A text-to-emotion classifier, trained on training utterances only: the judge behind emotion alignment (EA).

EA asks which of ArtEmis's nine answers an explanation speaks of (Sec. 4.1, after ArtEmis). The network has
the shape of ArtEmis's: an MLP over word embeddings, one LSTM, the maximum over time, an MLP. Two departures:
embeddings are learned here, not GloVe's, and the maximum runs over real words only, so that a sentence's
answer does not depend on what it was batched with. The schedule is fixed and the last step is kept: val and
test utterances are only counted, never learned from, nor used to choose anything.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import pydantic
import safetensors.torch
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from pipeline import storage
from pipeline.emotions import ALL_EMOTIONS, EMOTIONS, POSITIVE, SOMETHING_ELSE, emotion_index
from pipeline.params import STRICT, Paths, UserError

PAD, UNKNOWN = "<pad>", "<unk>"
_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "`": "'", "“": '"', "”": '"'})
_WHOLE = (("can't", "can not"), ("won't", "will not"), ("shan't", "shall not"), ("let's", "let us"))
_CLITIC = re.compile(r"(?<=\w)'(s|re|ve|ll|d|m)\b")
_WORD = re.compile(r"'(?:s|re|ve|ll|d|m)\b|\w+")


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class AlignmentParams:
    """The classifier and its training."""

    embedding: Annotated[int, Field(gt=0)] = 100
    """Width of a word embedding (ArtEmis: 100)."""
    hidden: Annotated[int, Field(gt=0)] = 128
    """Width of the LSTM (ArtEmis: 256, for a hundred times more text)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """In front of every linear layer (ArtEmis: 0.25)."""
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of training words shown as unknown: generated text has words and turns that people's has not."""
    min_count: Annotated[int, Field(gt=0)] = 2
    """Training occurrences that earn a word its own embedding (ArtEmis: 5)."""
    max_words: Annotated[int, Field(gt=0)] = 60
    """Longer sentences lose their end."""
    epochs: Annotated[int, Field(gt=0)] = 12
    """Passes over the training utterances."""
    batch: Annotated[int, Field(gt=1)] = 128
    """Utterances a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW, falling to zero along a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW."""
    seed: int = 2021
    """Of initial weights, order and dropout."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda."""


def words(sentence: str) -> list[str]:
    """Lower-case words of a sentence: punctuation dropped, n't spelled out, 's and 're words of their own.

    ArtEmis's tokenisation as far as it changes the words; its spelling correction is left out.
    """
    text = sentence.translate(_TYPOGRAPHIC).lower()
    for contraction, spelled in _WHOLE:
        text = text.replace(contraction, spelled)
    text = text.replace("n't", " not").replace("_", " ")
    return _WORD.findall(_CLITIC.sub(r" '\1", text))


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network, as saved beside its weights."""

    num_words: int
    embedding: int
    hidden: int
    dropout: float
    max_words: int
    classes: tuple[str, ...] = ALL_EMOTIONS


class EmotionLSTM(nn.Module):
    """Word ids (B, T) int64, right-padded with 0, to logits (B, 9) over `ALL_EMOTIONS`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        hidden, dropout = config.hidden, config.dropout
        self.embedding = nn.Embedding(config.num_words, config.embedding, padding_idx=0)
        self.encoder = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(config.embedding, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
        )
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(hidden, 100),
            nn.BatchNorm1d(100),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(100, len(config.classes)),
        )

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Logits; a row needs at least one word. Trailing padding does not change them."""
        states_BTC, _ = self.lstm(self.encoder(self.embedding(ids_BT)))
        states_BTC = states_BTC.masked_fill((ids_BT == 0).unsqueeze(-1), float("-inf"))
        logits: torch.Tensor = self.head(states_BTC.amax(dim=1))
        return logits


class EmotionClassifier:
    """The network and its vocabulary: sentences in, positions in `ALL_EMOTIONS` out."""

    def __init__(
        self,
        network: EmotionLSTM,
        config: NetworkConfig,
        vocabulary: Sequence[str],
        training: dict[str, Any] | None = None,
    ) -> None:
        self.network = network.eval()
        self.config = config
        self.training = training or {}
        """Counts and held-out accuracies of its training, see `build`."""
        self.vocabulary = tuple(vocabulary)
        """Word of each id; 0 is padding, 1 any unknown word."""
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Word ids, int64 (N, longest), right-padded with 0. A sentence without words is one unknown word."""
        rows = [
            [self._ids.get(word, 1) for word in words(sentence)[: self.config.max_words]] or [1]
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
        """Write model.safetensors, vocabulary.json and, last, config.json."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        storage.write_bytes(folder / "model.safetensors", safetensors.torch.save(state))
        storage.write_json(folder / "vocabulary.json", list(self.vocabulary))
        config = dataclasses.asdict(self.config) | {"training": self.training}
        storage.write_json(folder / "config.json", config)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "EmotionClassifier":
        """Read what `save` wrote. Raises `UserError` when it is not there or does not fit together."""
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            training = values.pop("training", None)
            config = NetworkConfig(**values | {"classes": tuple(values["classes"])})
            vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
            network = EmotionLSTM(config)
            network.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        except FileNotFoundError as error:
            raise UserError(f"{error.filename or folder} does not exist; run the alignment step") from None
        except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
            raise UserError(f"the emotion classifier in {folder} cannot be read: {error}") from None
        if config.classes != ALL_EMOTIONS or len(vocabulary) != config.num_words:
            raise UserError(f"the emotion classifier in {folder} has other classes or words than its weights")
        return cls(network.to(device), config, vocabulary, training)


def resolve_device(device: str) -> str:
    """`auto` as cuda where there is a GPU, else cpu."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def build_vocabulary(sentences: Sequence[str], min_count: int) -> list[str]:
    """Padding, unknown, then every word seen `min_count` times or more, frequent first, ties by spelling."""
    counts = Counter(word for sentence in sentences for word in words(sentence))
    kept = [word for word, count in counts.items() if count >= min_count]
    return [PAD, UNKNOWN, *sorted(kept, key=lambda word: (-counts[word], word))]


def train(sentences: Sequence[str], labels: np.ndarray, params: AlignmentParams) -> EmotionClassifier:
    """Fit a classifier to sentences and their positions in `ALL_EMOTIONS`, int (N,).

    The same input gives the same weights. Raises `UserError` for fewer than two sentences.
    """
    if len(sentences) < 2:
        raise UserError(f"alignment: {len(sentences)} training utterance(s) are too few to learn from")
    vocabulary = build_vocabulary(sentences, params.min_count)
    config = NetworkConfig(len(vocabulary), params.embedding, params.hidden, params.dropout, params.max_words)
    device = torch.device(resolve_device(params.device))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(params.seed)
        network = EmotionLSTM(config).to(device)
        classifier = EmotionClassifier(network, config, vocabulary)
        ids = classifier.encode(sentences).to(device)
        _fit(network, ids, torch.from_numpy(labels.astype(np.int64)).to(device), params)
    network.eval()
    return classifier


def _fit(network: EmotionLSTM, ids: torch.Tensor, labels: torch.Tensor, params: AlignmentParams) -> None:
    """AdamW on cross-entropy, in place. A last step of one row is left out: it has no batch statistics."""
    steps = [start for start in range(0, len(ids), params.batch) if len(ids) - start > 1]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=params.epochs * len(steps))
    lengths = (ids != 0).sum(dim=1)
    network.train()
    for _ in range(params.epochs):
        order = torch.randperm(len(ids)).to(ids.device)
        for start in steps:
            rows = order[start : start + params.batch]
            batch = ids[rows, : int(lengths[rows].max())]
            hidden = (torch.rand(batch.shape) < params.word_dropout).to(ids.device) & (batch != 0)
            loss = F.cross_entropy(network(batch.masked_fill(hidden, 1)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _accuracy(classifier: EmotionClassifier, sentences: Sequence[str], labels: np.ndarray) -> dict[str, Any]:
    """Percentages right: over the nine answers, over utterances of the eight emotions, and by sentiment."""
    if not sentences:
        return {"utterances": 0}
    found = classifier.classify(sentences)
    eight = labels < len(EMOTIONS)
    sentiment = np.array([(e in POSITIVE) + 2 * (e == SOMETHING_ELSE) for e in ALL_EMOTIONS])
    accuracy = {
        "utterances": len(sentences),
        "accuracy": 100.0 * float((found == labels).mean()),
        "sentiment_accuracy": 100.0 * float((sentiment[found] == sentiment[labels]).mean()),
    }
    if eight.any():
        accuracy["accuracy_eight"] = 100.0 * float((found == labels)[eight].mean())
    return accuracy


def build(paths: Paths, params: AlignmentParams) -> dict[str, Any]:
    """Train on the train utterances, measure on val and test, write data/alignment/. Returns the counts.

    Raises `UserError` when the utterances are not there or none is for training.
    """
    source = paths.step("utterances") / "utterances.parquet"
    if not source.is_file():
        raise UserError(f"{source} is missing; run the utterances step")
    table = pq.read_table(source, columns=["artemis_id", "emotion", "utterance", "split"])
    table = table.sort_by("artemis_id")  # the order of the csv, whatever the file's
    splits = np.array(table["split"].to_pylist(), dtype=object)
    sentences = np.array(table["utterance"].to_pylist(), dtype=object)
    labels = np.array([emotion_index(name) for name in table["emotion"].to_pylist()], dtype=np.int64)
    training = splits == "train"
    classifier = train(sentences[training].tolist(), labels[training], params)
    metrics: dict[str, Any] = {"train": int(training.sum()), "words": len(classifier.vocabulary)}
    for split in ("val", "test"):
        rows = splits == split
        metrics[split] = _accuracy(classifier, sentences[rows].tolist(), labels[rows])
    classifier.training = metrics
    classifier.save(paths.step("alignment"))
    return metrics
