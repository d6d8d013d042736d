"""A text-to-emotion classifier, trained on training utterances only: the judge behind emotion alignment (EA).

EA asks which of ArtEmis's nine answers an explanation speaks of (Sec. 4.1, after ArtEmis). The judge is
trained here, with word embeddings of its own instead of GloVe's, or is the one that ArtEmis's authors
publish. Ours has a fixed schedule and keeps the last step: val and test utterances are only counted, never
learned from, nor used to choose anything. The paper's EA is by ArtEmis's; two judges' EA cannot be compared.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pydantic
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from model.alignment.artemis_classifier import load_artemis
from model.alignment.networks import Architecture, EmotionClassifier, NetworkConfig, Padding, build_network
from model.alignment.words import plain_words
from pipeline.common.emotions import ALL_EMOTIONS, EMOTIONS, POSITIVE, SOMETHING_ELSE, emotion_index
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.lock import writes
from pipeline.common.machine import torch_device
from pipeline.common.params import STRICT, Paths
from pipeline.common.tables import table_file

PAD, UNKNOWN = "<pad>", "<unk>"


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class AlignmentParams:
    """The classifier and its training."""

    source: Literal["ours", "artemis"] = "ours"
    """ours: trained here; artemis: read from `checkpoint` and `vocabulary`, no training."""
    checkpoint: Path | None = None
    """ArtEmis's best_model.pt (or its state dict), for source artemis. Nothing in it is executed."""
    vocabulary: Path | None = None
    """ArtEmis's vocabulary.pkl, for source artemis. Nothing in it is executed."""
    padding: Padding | None = None
    """What padding does to the maximum over a sentence's words: none, or zeros (a zero state joins them, as
    in ArtEmis's batches for all but the longest sentence). null: zeros for artemis, none for ours."""
    architecture: Architecture = "lstm"
    """lstm (ArtEmis's) or transformer, for source ours. On the built-in gallery the transformer is right as
    often and takes 1.5 to 2.5 times as long; in the LSTM's time it is right less often."""
    layers: Annotated[int, Field(gt=0)] = 2
    """Of the transformer."""
    heads: Annotated[int, Field(gt=0)] = 4
    """Of the transformer; a divisor of `hidden`."""
    embedding: Annotated[int, Field(gt=0)] = 100
    """Width of a word embedding of the LSTM (ArtEmis: 100); the transformer's is `hidden`."""
    hidden: Annotated[int, Field(gt=0)] = 128
    """Width of the network (ArtEmis: 256, for a hundred times more text)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """In front of every linear layer (ArtEmis: 0.25), and within the transformer."""
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


def build_vocabulary(sentences: Sequence[str], min_count: int) -> list[str]:
    """Padding, unknown, then every word seen `min_count` times or more, frequent first, ties by spelling."""
    counts = Counter(word for sentence in sentences for word in plain_words(sentence))
    kept = [word for word, count in counts.items() if count >= min_count]
    return [PAD, UNKNOWN, *sorted(kept, key=lambda word: (-counts[word], word))]


def train_classifier(
    sentences: Sequence[str], labels: np.ndarray, params: AlignmentParams
) -> EmotionClassifier:
    """Fit a classifier to sentences and their positions in `ALL_EMOTIONS`, int (N,).

    The same input gives the same weights. Raises `UserError` for fewer than two sentences.
    """
    if len(sentences) < 2:
        raise UserError(f"alignment: {len(sentences)} training utterance(s) are too few to learn from")
    vocabulary = build_vocabulary(sentences, params.min_count)
    config = _network_config(len(vocabulary), params)
    device = torch.device(torch_device(params.device, "alignment.device"))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(params.seed)
        network = build_network(config).to(device)
        classifier = EmotionClassifier(network, config, vocabulary)
        ids = classifier.encode(sentences).to(device)
        _fit(network, ids, torch.from_numpy(labels.astype(np.int64)).to(device), params)
    network.eval()
    return classifier


def _network_config(num_words: int, params: AlignmentParams) -> NetworkConfig:
    transformer = params.architecture == "transformer"
    if transformer and params.hidden % params.heads:
        raise UserError(
            f"alignment.heads = {params.heads} does not divide alignment.hidden = {params.hidden}"
        )
    return NetworkConfig(
        num_words=num_words,
        embedding=params.hidden if transformer else params.embedding,
        hidden=params.hidden,
        dropout=params.dropout,
        max_words=params.max_words,
        architecture=params.architecture,
        layers=params.layers if transformer else 1,
        heads=params.heads if transformer else 1,
        padding=params.padding or "none",
    )


def _fit(network: nn.Module, ids: torch.Tensor, labels: torch.Tensor, params: AlignmentParams) -> None:
    """AdamW on cross-entropy, in place. A last step of one row is left out: it has no batch statistics.

    Raises `RunFailed` when the loss is not finite any more.
    """
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
        if not loss.isfinite():  # of the last step: no weight comes back from a NaN
            raise RunFailed("alignment: the training loss is not finite; lower alignment.learning_rate")


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


@writes(lambda paths, *_: [paths.step("alignment")])
def build_alignment(paths: Paths, params: AlignmentParams) -> dict[str, Any]:
    """Train on the train utterances, or read ArtEmis's; measure on val and test; write data/alignment/.

    Returns the counts. Raises `UserError` when the utterances are not there, none is for training, or
    ArtEmis's files cannot be used.
    """
    table = pq.read_table(
        table_file(paths, "utterances"), columns=["artemis_id", "emotion", "utterance", "split"]
    )
    table = table.sort_by("artemis_id")  # the order of the csv, whatever the file's
    splits = np.array(table["split"].to_pylist(), dtype=object)
    sentences = np.array(table["utterance"].to_pylist(), dtype=object)
    labels = np.array([emotion_index(name) for name in table["emotion"].to_pylist()], dtype=np.int64)
    metrics: dict[str, Any] = {"source": params.source}
    if params.source == "artemis":
        classifier, origin = _read_artemis(params)
        metrics |= origin
    else:
        training = splits == "train"
        classifier = train_classifier(sentences[training].tolist(), labels[training], params)
        metrics |= {"train": int(training.sum())}
    metrics |= {"architecture": classifier.config.architecture, "words": len(classifier.vocabulary)}
    for split in ("val", "test"):
        rows = splits == split
        metrics[split] = _accuracy(classifier, sentences[rows].tolist(), labels[rows])
    classifier.training = metrics
    classifier.save(paths.step("alignment"))
    return metrics


def _read_artemis(params: AlignmentParams) -> tuple[EmotionClassifier, dict[str, Any]]:
    """ArtEmis's classifier on its device, and which files it came from."""
    if params.checkpoint is None or params.vocabulary is None:
        raise UserError(
            "alignment.source = artemis needs alignment.checkpoint (ArtEmis's best_model.pt) and "
            "alignment.vocabulary (its vocabulary.pkl)"
        )
    classifier = load_artemis(
        params.checkpoint, params.vocabulary, params.padding or "zeros", params.max_words
    )
    classifier.network.to(torch_device(params.device, "alignment.device"))
    files = (("checkpoint", params.checkpoint), ("vocabulary", params.vocabulary))
    return classifier, {f"{name}_sha256": sha256_file(path) for name, path in files}
