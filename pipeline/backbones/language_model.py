"""A GPT-2's folder as transformers saves it: config.json, weights, tokenizer. Nothing in it is run.

transformers offers to import Python that a folder names (`auto_map`, `custom_generate`), and asks on the
terminal. Here such a folder is refused before transformers sees it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.backbones.tensors import check_finite, misfits, read_tensors, shapes_of, weight_files
from pipeline.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "preprocessor_config.json",
    "adapter_config.json",
)
"""What transformers may read of a folder for its settings."""
VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt")
RUNS_CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
"""Settings that name Python to be imported, or ask for it."""
TOKENIZERS = ("GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that read a GPT-2's tokenizer."""
NOT_SIZES = (
    "transformers_version",
    "architectures",
    "dtype",
    "add_cross_attention",
    "model_type",
    "_name_or_path",
)
"""Keywords of `GPT2Config` that say how a file was written, or that EmoSEM decides."""
MASKS = (".attn.bias", ".attn.masked_bias")
"""Endings of what older files hold besides weights: who may see whom."""


def refuse_code(folder: Path) -> None:
    """Raise `UserError` when a model's folder asks for code of its own to be run."""
    for name in CONFIGS:
        try:
            values = _json(folder / name)
        except UserError:
            continue  # not there, or no settings: whoever needs it says so
        asked = next((key for key in RUNS_CODE if values.get(key)), None)
        if asked is not None:
            said = json.dumps(values[asked])[:200]
            raise UserError(
                f"{folder / name} asks for Python code to be run ({asked}: {said}). No code that comes with "
                "a model is ever run here: use a GPT-2 with a tokenizer that transformers itself has"
            )
    if (folder / "custom_generate").exists():
        raise UserError(
            f"{folder / 'custom_generate'} holds Python code that transformers would run. No code that comes "
            "with a model is ever run here: delete it, if you trust the rest"
        )


def language_model_files(folder: Path) -> list[Path]:
    """All files that are read of a GPT-2's folder, in a fixed order. Raises `UserError` without weights."""
    others = (folder / name for name in (*CONFIGS, *VOCABULARY))
    return [*weight_files(folder), *(file for file in others if file.is_file())]


def read_gpt2(
    folder: Path, *, device: Literal["cpu", "meta"] = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A GPT-2's keywords of `GPT2Config`, and its weights by the names of `GPT2LMHeadModel`.

    Args:
        folder: config.json and weights, in one file or several, as safetensors or torch's .bin. The names may
            be those of the whole model or of its `transformer` alone.
        device: "meta" reads no numbers.

    Raises:
        UserError: another model, weights that do not fit or are not finite, or code to be run.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; backbones.language_model names a GPT-2's, with its config.json"
        )
    refuse_code(folder)
    keywords = _keywords(folder)
    state = _lm_names(read_tensors(folder, device=device))
    tied = keywords.get("tie_word_embeddings", True)
    if tied and "transformer.wte.weight" in state:
        state.setdefault("lm_head.weight", state["transformer.wte.weight"])
    _check_fit(folder, keywords, state)
    check_finite(state, folder)
    if tied and device != "meta" and not state["lm_head.weight"].equal(state["transformer.wte.weight"]):
        raise UserError(
            f"{folder / 'config.json'} says that the output layer is the word embedding "
            "(tie_word_embeddings), and the weights hold two different ones"
        )
    return keywords, state


def _lm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of `GPT2LMHeadModel`, of those of its `transformer` alone too; without `MASKS`."""
    whole = {
        name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
        for name, tensor in tensors.items()
    }
    return {name: tensor for name, tensor in whole.items() if not name.endswith(MASKS)}


def _check_fit(folder: Path, keywords: dict[str, Any], state: dict[str, Tensor]) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**keywords)
    layers = {name.split(".")[2] for name in state if name.startswith("transformer.h.")}
    if config.n_layer != len(layers):  # before so many are built
        raise UserError(
            f"{folder} holds {len(layers)} layers of a GPT-2; its config.json says n_layer {config.n_layer}"
        )
    try:
        with torch.device("meta"):
            own = GPT2LMHeadModel(config).state_dict()
    except Exception as error:  # settings of any kind and size
        raise UserError(f"{folder / 'config.json'} describes no GPT-2 that can be built: {error}") from None
    if listed := misfits(shapes_of(own), shapes_of(state)):
        raise UserError(f"{folder} holds other weights than those of the GPT-2 in its config.json:\n{listed}")


def _keywords(folder: Path) -> dict[str, Any]:
    """`GPT2Config` keywords, without what only says how its file was written, and without unknown ones."""
    from transformers import GPT2Config

    values = _json(folder / "config.json")
    if values.get("model_type") != "gpt2":
        raise UserError(
            f"{folder / 'config.json'} says model_type {values.get('model_type')!r}; "
            "the language model is a GPT-2"
        )
    known = GPT2Config().to_dict().keys() - set(NOT_SIZES)
    try:
        config = GPT2Config(**{name: value for name, value in values.items() if name in known}).to_diff_dict()
    except Exception as error:  # values of any kind
        raise UserError(f"{folder / 'config.json'} describes no GPT-2: {error}") from None
    return {name: value for name, value in sorted(config.items()) if name in known}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, by transformers' own classes alone.

    Raises `UserError` when there is none, it cannot be read, or it asks for code to be run.
    """
    from transformers import AutoTokenizer

    refuse_code(folder)
    file = folder / "tokenizer_config.json"
    kind = _json(file).get("tokenizer_class") if file.is_file() else None
    if kind is not None and kind not in TOKENIZERS:
        raise UserError(f"{file} names a {kind!r}; a GPT-2's is needed: {', '.join(TOKENIZERS)}")
    if not (folder / "tokenizer.json").is_file() and not all((folder / n).is_file() for n in VOCABULARY[1:]):
        raise UserError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        words = len(tokenizer.encode("a word"))
    except Exception as error:  # the tokenizers package answers a damaged file with plain exceptions
        raise UserError(f"the tokenizer in {folder} cannot be read: {error}") from None
    if tokenizer.eos_token_id is None or not words:
        lack = "knows no words" if not words else "has no end-of-text token"
        raise UserError(f"the tokenizer in {folder} {lack}")
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object")
    return values
