"""The two small byte-pair encodings, learned from the gallery's grammar.

CLIP's goes into open_clip's `SimpleTokenizer` file (lower case, ``</w>`` ends a word), the language model's
into GPT-2's byte-level tokenizer (a leading space belongs to its word).
"""

import gzip
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import regex  # type: ignore[import-untyped]
from open_clip.tokenizer import bytes_to_unicode
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pipeline import storage

CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How `SimpleTokenizer` cuts a text into words before it merges bytes."""
END_OF_TEXT = "<|endoftext|>"


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
    storage.write_bytes(path, buffer.getvalue())


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


def train_gpt2_bpe(texts: Sequence[str], folder: Path, vocab_size: int, context: int) -> int:
    """Learn a byte-level BPE and write it as transformers' ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        texts: sentences; each is learned as the start of a text and, after a space, as the middle of one.
        folder: where the files go.
        vocab_size: upper bound, with the 256 bytes and ``<|endoftext|>``, which is the last id.
        context: longest input of the model, tokens.

    Returns:
        The size of the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for one in texts for text in (one, f" {one}")), trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "model_max_length": context,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
    }
    storage.write_json(folder / "tokenizer_config.json", config)
    storage.write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    return int(tokenizer.get_vocab_size())
