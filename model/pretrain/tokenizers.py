"""The small CLIP's byte-pair encoding, learned from the gallery's grammar.

It is a file of open_clip's `SimpleTokenizer` (lower case, ``</w>`` ends a word). The language model's own is
made in `language_model`.
"""

import gzip
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import regex  # type: ignore[import-untyped]
from open_clip.tokenizer import bytes_to_unicode

from pipeline.common.files import write_bytes

CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How `SimpleTokenizer` cuts a text into words before it merges bytes."""


def train_clip_bpe(texts: Sequence[str], path: Path, merges: int) -> None:
    """Learn at most `merges` merges and write them as open_clip's ``bpe.txt.gz``.

    The tokenizer that reads it has 512 byte symbols, the merges, and two special tokens. The merging is done
    here because `tokenizers`' trainer breaks ties at random where words have an end symbol.
    """
    counts = Counter(word for text in texts for word in regex.findall(CLIP_PATTERN, text.lower()))
    text = "\n".join(["#version: 0.2", *learn_merges(counts, merges)])  # a last newline would be a merge
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as file:
        file.write(text.encode())
    write_bytes(path, buffer.getvalue())


def learn_merges(counts: Mapping[str, int], merges: int) -> list[str]:
    """The byte pairs "a b" of words with their counts, most frequent first; ties go to the first by name."""
    symbols = bytes_to_unicode()
    words = {
        (*(symbols[byte] for byte in word.encode()[:-1]), symbols[word.encode()[-1]] + "</w>"): count
        for word, count in counts.items()
    }
    learned: list[str] = []
    while len(learned) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learned.append(" ".join(best))
        words = {_merged(word, best): count for word, count in words.items()}
    return learned


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """A word with every occurrence of a pair made one symbol, from the left."""
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)
