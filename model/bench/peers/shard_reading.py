"""Feature shards into batches: our reader against what else reads samples from shards.

Every side makes the same batches of artworks: grids of SAM and CLIP, masks in SAM's frame, utterances as
tokens. Peers get what suits them: a format of their own, written beforehand, features and masks together,
whole artworks in their order, no shuffling, decoding in their workers.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.bench import true_size_shards
from model.bench.peers.pair import Differ, Job, Pair
from model.data.batch import Batch
from model.data.frame import Frame
from model.data.loader import load_batches
from model.data.samples import Samples
from model.emosem.captioner import encode_texts
from model.emosem.losses import IGNORE
from pipeline.backbones.language_model import load_tokenizer
from pipeline.common.emotions import EMOTIONS
from pipeline.common.tars import read_tar
from pipeline.reader.index import Index

MAX_TOKENS = 25
FRAME = Frame(1024, side=256)
ASKED = EMOTIONS[: true_size_shards.EMOTIONS_EACH]
Stored = Mapping[str, bytes]
"""An artwork's members by name, features and masks together."""
Read = dict[str, list[Tensor]]
"""Key -> grids of SAM and CLIP, masks (E, 256, 256), tokens (T, L)."""


@dataclasses.dataclass(frozen=True)
class Shards:
    """Shards of the paper's sizes, and their content for peers to store in their own way."""

    index: Index
    artworks: int
    batch: int
    """Artworks of a batch."""
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def write(cls, job: Job) -> "Shards":
        """64 artworks, 154 MB; a tiny job has eight."""
        artworks, batch = (8, 2) if job.tiny else (64, 8)
        index = true_size_shards.write_shards(job.folder / "ours", artworks)
        return cls(index, artworks, batch, load_tokenizer(job.tokenizer))

    def stored(self) -> Iterable[tuple[str, Stored]]:
        """Key and members of every artwork, in order."""
        tars = [self.index.folder.parent / file / "000000.tar" for file in ("features", "masks")]
        for (key, features), (_, masks) in zip(*map(read_tar, tars), strict=True):
            yield key, {**features, **masks, "features.json": features["json"], "json": masks["json"]}


def pair(job: Job, shards: Shards, workers: int, peer: Iterable[dict[str, Any]]) -> Pair:
    """A row: one epoch by us, on so many threads, and one by the peer, whose batches `collate` made."""
    samples = Samples(shards.index, "train", shards.tokenizer, FRAME, max_tokens=MAX_TOKENS)
    owners = samples.table[:, 0] // shards.batch
    numbers = [np.flatnonzero(owners == batch) for batch in range(owners[-1] + 1)]

    def epoch(use: Callable[[Batch], Any]) -> int:
        loading = load_batches(samples, numbers, torch.device("cpu"), workers=workers)
        with closing(loading) as batches:
            return sum(1 for batch in batches if use(batch) is None)

    def theirs() -> int:
        return sum(1 for _ in peer)

    def check() -> str:
        ours: Read = {}
        epoch(lambda batch: ours.update(_by_key(batch, samples.keys)))
        return compare(ours, {key: found for batch in peer for key, found in _unpacked(batch).items()})

    return Pair(
        f"{shards.artworks} artworks of 2.4 MB from the page cache, batches of {shards.batch}, "
        + (f"{workers} workers (ours: threads)" if workers else "no workers"),
        "artworks",
        shards.artworks,
        lambda: epoch(lambda _: None),
        theirs,
        check,
    )


def decode(shards: Shards, sam: np.ndarray, clip: np.ndarray, members: Stored) -> dict[str, Any]:
    """What a peer's worker makes of an artwork."""
    height, width = json.loads(bytes(members["features.json"]))["sam"]["input_size"]
    words = json.loads(bytes(members["json"]))
    targets = np.zeros((len(ASKED), FRAME.side, FRAME.side), dtype=np.uint8)
    for target, emotion in zip(targets, ASKED, strict=True):
        png = np.frombuffer(members[f"{emotion}.png"], dtype=np.uint8)
        mask = np.asarray(cv2.imdecode(png, cv2.IMREAD_GRAYSCALE))
        FRAME.place(mask, height, width, target)
    texts = [text for emotion in ASKED for text in words["emotions"][emotion]["utterances"]]
    tokens = encode_texts(shards.tokenizer, texts, MAX_TOKENS)
    return {"key": words["key"], "sam": sam, "clip": clip, "target": targets, "tokens": tokens}


def load_npy(data: bytes) -> np.ndarray:
    """As webdataset decodes ``.npy``."""
    array: np.ndarray = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A peer's batch: everything stacked into tensors, as `Samples` does it."""
    texts = [text for sample in samples for text in sample["tokens"]]
    length = max(map(len, texts))
    tokens = torch.tensor([[*text, *[text[-1]] * (length - len(text))] for text in texts])
    labels = torch.tensor([[*text, *[IGNORE] * (length - len(text))] for text in texts])
    batch = {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in ("sam", "clip")}
    targets = torch.from_numpy(np.concatenate([s["target"] for s in samples]))
    keys = [s["key"] for s in samples]
    return {"keys": keys, **batch, "target": targets, "tokens": tokens, "labels": labels}


def _by_key(batch: Batch, keys: Sequence[str]) -> Read:
    found = {}
    for number, artwork in enumerate(batch.artworks.tolist()):
        rows = torch.nonzero(batch.rows == number)[:, 0]
        texts = torch.isin(batch.query, rows)
        grids = [batch.sam[number], batch.clip[number]]
        found[keys[artwork]] = [*grids, batch.target[rows], batch.tokens[texts]]
    return found


def _unpacked(batch: Mapping[str, Any]) -> Read:
    found = {}
    masks, texts = (len(batch[name]) // len(batch["keys"]) for name in ("target", "tokens"))
    for number, key in enumerate(batch["keys"]):
        own = batch["target"][number * masks :][:masks], batch["tokens"][number * texts :][:texts]
        found[key] = [batch["sam"][number], batch["clip"][number], *own]
    return found


def compare(ours: Read, theirs: Read) -> str:
    """In words, that both read the same. Raises `Differ`."""
    if ours.keys() != theirs.keys():
        alone = len(ours.keys() ^ theirs.keys())
        raise Differ(f"{len(ours)} artworks here, {len(theirs)} there; {alone} of one side alone")
    for key, found in ours.items():
        for name, a, b in zip(("SAM grid", "CLIP grid", "masks", "tokens"), found, theirs[key], strict=True):
            if a.dtype != b.dtype or not torch.equal(a, b):
                raise Differ(f"artwork {key}: its {name} differ")
    return f"bit-identical grids, masks and tokens of {len(ours)} artworks"
