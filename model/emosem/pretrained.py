"""Pretrained parts into the network: SAM's decoder and prompt encoder, GPT-2, its tokenizer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM, build_emosem
from pipeline.common.emotions import EMOTIONS, prompt
from pipeline.common.errors import UserError

OFFICIAL_HEADS = 8
"""Attention heads of the mixer in every official SAM; the one size that no weight's shape tells."""
LANGUAGE_MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What transformers may read of a GPT-2's folder besides its weights."""


@dataclass(frozen=True)
class SamDecoder:
    """What EmoSEM takes over from a SAM checkpoint."""

    state: dict[str, Tensor]
    """float32 weights by the names of `MaskDecoder`."""
    dim: int
    grid: int
    image_size: int
    depth: int
    num_heads: int
    mlp_dim: int


def load_sam_decoder(checkpoint: Path) -> SamDecoder:
    """Decoder weights and sizes from a whole SAM checkpoint; the image encoder is never built.

    Args:
        checkpoint: an official ``sam_vit_*.pth``, or a .safetensors with the same names; the number of
            attention heads comes from ``decoder_num_heads`` in a json of the same stem, if there is one.

    Raises:
        UserError: the file cannot be read, or is no SAM (the missing weight is named).
    """
    try:
        state, shapes = _read_sam(checkpoint)
        side = checkpoint.with_suffix(".json")
        sizes = json.loads(side.read_text(encoding="utf-8")) if side.is_file() else {}
        layers = "mask_decoder.transformer.layers."
        depth = len({name.split(".")[3] for name in shapes if name.startswith(layers)})
        grid = shapes["image_encoder.pos_embed"][1]
        return SamDecoder(
            state=state,
            dim=shapes["mask_decoder.iou_token.weight"][1],
            grid=grid,
            image_size=grid * shapes["image_encoder.patch_embed.proj.weight"][2],
            depth=depth,
            num_heads=int(sizes.get("decoder_num_heads", OFFICIAL_HEADS)),
            mlp_dim=shapes[f"{layers}0.mlp.lin1.weight"][0],
        )
    except KeyError as error:
        raise UserError(f"{checkpoint} is no SAM checkpoint: it has no weight {error}") from None
    except Exception as error:  # unpicklers and archive readers answer a damaged file with almost anything
        raise UserError(f"SAM checkpoint {checkpoint} cannot be read: {error}") from None


_OWN_NAMES = {
    "mask_decoder.": "",
    "prompt_encoder.pe_layer.": "pe_layer.",
    "prompt_encoder.no_mask_embed.": "no_mask_embed.",
}
"""SAM's prefixes that EmoSEM uses, and what they are called in `MaskDecoder`."""


def _read_sam(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
    """The used weights under our names, and every weight's shape under SAM's."""
    used: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in _tensors(checkpoint):
        shapes[name] = tuple(tensor.shape)
        for theirs, ours in _OWN_NAMES.items():
            if name.startswith(theirs) and ".iou_prediction_head." not in name:
                used[ours + name.removeprefix(theirs)] = tensor.float()
    return used, shapes


def _tensors(checkpoint: Path) -> Iterator[tuple[str, Tensor]]:
    if checkpoint.suffix == ".safetensors":
        with safe_open(checkpoint, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                yield name, file.get_tensor(name)
        return
    yield from torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).items()


def build_pretrained(
    sam_checkpoint: Path,
    language_model: Path,
    *,
    untie_words: bool = False,
    **choices: Any,
) -> EmoSEM:
    """EmoSEM on pretrained parts; what neither SAM nor GPT-2 has is drawn from torch's current seed.

    New are the projectors and GPT-2's cross-attention, as in the paper.

    Args:
        sam_checkpoint: see `load_sam_decoder`.
        language_model: folder of a GPT-2 and its tokenizer.
        untie_words: learn the output layer apart from the word embedding; both start from the latter.
        choices: keywords of `EmoSEMConfig` that do not follow from these parts.

    Raises `UserError` for parts that are missing, damaged or do not fit together.
    """
    sam = load_sam_decoder(sam_checkpoint)
    tokenizer = load_tokenizer(language_model)
    try:
        config = EmoSEMConfig(
            dim=sam.dim,
            grid=sam.grid,
            image_size=sam.image_size,
            mixer_depth=sam.depth,
            mixer_heads=sam.num_heads,
            mixer_mlp_dim=sam.mlp_dim,
            language_model=_gpt2_keywords(language_model)
            | ({"tie_word_embeddings": False} if untie_words else {}),
            prompts=tuple(tuple(tokenizer.encode(prompt(e), add_special_tokens=False)) for e in EMOTIONS),
            **choices,
        )
        model = build_emosem(config)
        initialise(model, sam.state, language_model)
    except (ValueError, RuntimeError) as error:  # of pydantic, and of load_state_dict
        raise UserError(f"{sam_checkpoint} and {language_model} do not make an EmoSEM: {error}") from None
    model.tokenizer = tokenizer
    return model


def pretrained_files(sam_checkpoint: Path, language_model: Path) -> list[Path]:
    """The files that `build_pretrained` reads. Raises `UserError` when there are no weights."""
    weights = language_model / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights} does not exist; a GPT-2 in another format is not read")
    others = [sam_checkpoint.with_suffix(".json"), *(language_model / name for name in LANGUAGE_MODEL_FILES)]
    return [sam_checkpoint, weights, *(file for file in others if file.is_file())]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of a local language model. Raises `UserError`."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"language model folder {folder} has no tokenizer: {error}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer in {folder} has no end-of-text token")
    return tokenizer


def _gpt2_keywords(folder: Path) -> dict[str, Any]:
    """`GPT2Config` keywords of a local GPT-2, without what only says how its file was written."""
    try:
        config = GPT2Config.from_pretrained(folder, local_files_only=True).to_diff_dict()
    except (OSError, ValueError) as error:
        raise UserError(f"language model folder {folder} has no config.json of a GPT-2: {error}") from None
    left_out = ("transformers_version", "architectures", "dtype", "add_cross_attention", "model_type")
    return {name: value for name, value in sorted(config.items()) if name not in left_out}


def initialise(model: EmoSEM, sam_state: dict[str, Tensor], language_model: Path) -> None:
    """Load SAM's decoder and a local GPT-2 into a network; other weights stay as they are.

    Multi-Masks starts its eight mask tokens and hypernetworks from SAM's first ones, see `_eightfold`.
    Raises `RuntimeError` or `ValueError` when shapes do not fit.
    """
    if model.config.paradigm == "multi":
        sam_state = _eightfold(sam_state)
    model.mask_decoder.load_state_dict(sam_state, strict=True)
    transformers_logging.disable_progress_bar()
    try:
        pretrained = GPT2LMHeadModel.from_pretrained(
            language_model, dtype=torch.float32, local_files_only=True
        )
    except OSError as error:
        raise ValueError(str(error)) from None
    missing, extra = model.captioner.gpt2.load_state_dict(pretrained.state_dict(), strict=False)
    new = [name for name in missing if "crossattention." not in name and "ln_cross_attn." not in name]
    if new or extra:
        raise ValueError(f"{language_model} lacks weights {new} and has unknown ones {extra}")


def _eightfold(sam_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SAM's decoder with eight mask tokens and hypernetworks like its first.

    The tokens differ by noise as large as they are: from equal ones the hypernetworks learn the emotions
    alone, the tokens stay alike, and the language model, which sees nothing else, cannot tell emotions apart
    (measured on the gallery: EA at chance after nine epochs).
    """
    tokens, heads = "mask_tokens.weight", "output_hypernetworks_mlps."
    state = {name: tensor for name, tensor in sam_state.items() if not name.startswith(heads)}
    token = sam_state[tokens][:1]
    state[tokens] = token + torch.randn(len(EMOTIONS), token.shape[1]) * token.square().mean().sqrt()
    for name, tensor in sam_state.items():
        if name.startswith(f"{heads}0."):
            state |= {f"{heads}{i}.{name.removeprefix(f'{heads}0.')}": tensor for i in range(len(EMOTIONS))}
    return state
