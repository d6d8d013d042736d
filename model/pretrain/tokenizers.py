"""The two small byte-pair encodings, learned from the gallery's grammar.

CLIP's goes into open_clip's `SimpleTokenizer` file (lower case, ``</w>`` ends a word), the language model's
into GPT-2's byte-level tokenizer (a leading space belongs to its word).
"""

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pipeline import storage

CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How `SimpleTokenizer` cuts a text into words before it merges bytes."""
END_OF_TEXT = "<|endoftext|>"


def train_clip_bpe(texts: Sequence[str], path: Path, merges: int) -> None:
    """Learn at most `merges` merges and write them as open_clip's ``bpe.txt.gz``.

    The tokenizer that reads it has 512 byte symbols, the merges, and two special tokens.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"][:merges]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in learned]
    text = "\n".join(["#version: 0.2", *pairs])  # no final newline: it would read as an empty merge
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as file:
        file.write(text.encode())
    storage.write_bytes(path, buffer.getvalue())


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
