"""Pretrained parts into the network: SAM's decoder and prompt encoder, GPT-2, its tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM, build_emosem
from pipeline.backbones.language_model import language_model_files, load_tokenizer, read_gpt2
from pipeline.backbones.sam_weights import decoder_heads, read_sam
from pipeline.backbones.tensors import sizes_beside, weight_files
from pipeline.backbones.weight_hashes import weights_sha256
from pipeline.common.emotions import EMOTIONS, prompt
from pipeline.common.errors import UserError


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
    """Decoder weights and sizes from a whole SAM checkpoint; the image encoder's numbers are not read.

    Args:
        checkpoint: any that `sam_weights.read_sam` takes; heads as in `sam_weights.decoder_heads`.

    Raises:
        UserError: the file cannot be read, or is no SAM (the missing weight is named).
    """
    layers = "mask_decoder.transformer.layers."
    state, shapes = read_sam(checkpoint, only=tuple(_OWN_NAMES))
    try:
        grid = shapes["image_encoder.pos_embed"][1]
        return SamDecoder(
            state=_own_names(state),
            dim=shapes["mask_decoder.iou_token.weight"][1],
            grid=grid,
            image_size=grid * shapes["image_encoder.patch_embed.proj.weight"][2],
            depth=len({name.split(".")[3] for name in shapes if name.startswith(layers)}),
            num_heads=decoder_heads(checkpoint),
            mlp_dim=shapes[f"{layers}0.mlp.lin1.weight"][0],
        )
    except KeyError as error:
        raise UserError(f"{checkpoint} is no SAM checkpoint: it has no weight {error}") from None
    except IndexError:
        raise UserError(f"{checkpoint} is no SAM checkpoint: its weights have other shapes") from None


_OWN_NAMES = {
    "mask_decoder.": "",
    "prompt_encoder.pe_layer.": "pe_layer.",
    "prompt_encoder.no_mask_embed.": "no_mask_embed.",
}
"""SAM's prefixes that EmoSEM uses, and what they are called in `MaskDecoder`."""


def _own_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """float32 weights as `MaskDecoder` names them."""
    return {
        ours + name.removeprefix(theirs): tensor.float()
        for name, tensor in state.items()
        for theirs, ours in _OWN_NAMES.items()
        if name.startswith(theirs) and ".iou_prediction_head." not in name
    }


def build_pretrained(
    sam_checkpoint: Path,
    language_model: Path,
    *,
    untie_words: bool = False,
    dropout: float | None = None,
    **choices: Any,
) -> EmoSEM:
    """EmoSEM on pretrained parts; what neither SAM nor GPT-2 has is drawn from torch's current seed.

    New are the projectors and GPT-2's cross-attention, as in the paper.

    Args:
        sam_checkpoint: see `load_sam_decoder`.
        language_model: folder of a GPT-2 and its tokenizer.
        untie_words: learn the output layer apart from the word embedding; both start from the latter.
        dropout: of GPT-2's embeddings, attention and residuals; None leaves what its config says.
        choices: keywords of `EmoSEMConfig` that do not follow from these parts.

    Raises `UserError` for parts that are missing, damaged or do not fit together.
    """
    sam = load_sam_decoder(sam_checkpoint)
    keywords, gpt2 = read_gpt2(language_model)
    if dropout is not None:
        keywords = keywords | dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    tokenizer = load_tokenizer(language_model)
    if len(tokenizer) > (words := len(gpt2["transformer.wte.weight"])):
        raise UserError(f"the tokenizer in {language_model} has {len(tokenizer)} words, its GPT-2 {words}")
    try:
        config = EmoSEMConfig(
            dim=sam.dim,
            grid=sam.grid,
            image_size=sam.image_size,
            mixer_depth=sam.depth,
            mixer_heads=sam.num_heads,
            mixer_mlp_dim=sam.mlp_dim,
            language_model=keywords | ({"tie_word_embeddings": False} if untie_words else {}),
            prompts=tuple(tuple(tokenizer.encode(prompt(e), add_special_tokens=False)) for e in EMOTIONS),
            **choices,
        )
        model = build_emosem(config)
        initialise(model, sam.state, gpt2)
    except (ValueError, RuntimeError) as error:  # of pydantic, and of load_state_dict
        raise UserError(f"{sam_checkpoint} and {language_model} do not make an EmoSEM: {error}") from None
    model.tokenizer = tokenizer
    return model


def pretrained_files(sam_checkpoint: Path, language_model: Path) -> list[Path]:
    """The files that `build_pretrained` reads. Raises `UserError` when there are no weights."""
    sam = weight_files(sam_checkpoint)
    beside = {sizes_beside(sam_checkpoint), sam[0].with_name("config.json")}
    sizes = sorted(file for file in beside if file.is_file())
    return [*sam, *sizes, *language_model_files(language_model)]


def pretrained_digests(sam_checkpoint: Path, language_model: Path) -> dict[str, str]:
    """SHA-256 of the weights that a model begins with, by what they are."""
    return {"SAM": weights_sha256(sam_checkpoint), "language model": weights_sha256(language_model)}


def initialise(model: EmoSEM, sam_state: dict[str, Tensor], gpt2_state: dict[str, Tensor]) -> None:
    """Load SAM's decoder and a GPT-2 (see `read_gpt2`) into a network; other weights stay as they are.

    Multi-Masks starts its eight mask tokens and hypernetworks from SAM's first ones, see `_eightfold`.
    Raises `RuntimeError` or `ValueError` when shapes do not fit.
    """
    if model.config.paradigm == "multi":
        sam_state = _eightfold(sam_state)
    model.mask_decoder.load_state_dict(sam_state, strict=True)
    missing, extra = model.captioner.gpt2.load_state_dict(gpt2_state, strict=False)
    new = [name for name in missing if "crossattention." not in name and "ln_cross_attn." not in name]
    if new or extra:
        raise ValueError(f"the GPT-2 lacks weights {new} and has unknown ones {extra}")


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
