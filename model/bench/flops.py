"""Parameters and multiply-adds of the whole network, frozen encoders included, as the paper counts them.

Tab. 2 and 3 say "FLOPs" for what fvcore counts: multiply-adds of matrix products and convolutions and five
operations an element of a layer norm, at batch 1. CLIP's attention products are not among them, because
fvcore does not see into torch's fused attention; SAM's and GPT-2's are, because they were written out.
Everything is counted on torch's meta device: no weights, no arithmetic.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.emosem.config import EmoSEMConfig, ScaConfig
from model.emosem.network import EmoSEM, build_emosem

TEXT = 20
"""Words in the language model when the paper counted."""
PROMPT = 8
"""Tokens of the emotional prompt (nine for "contentment")."""
PATCHES = 196
"""CLIP's patch tokens."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the network."""

    parameters: int
    trainable: int
    multiply_adds: int


def multiply_adds(call: Callable[[], Any]) -> int:
    """Multiply-adds of what `call` computes, attention included; layer norms by fvcore's rule."""

    def layer_norm(shape: tuple[int, ...], *_: Any, **__: Any) -> int:
        return 2 * 5 * math.prod(shape)

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: layer_norm})
    with counter, torch.no_grad():
        call()
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two


def inventory(config: EmoSEMConfig, sam: Any, clip_visual: Any) -> dict[str, Part]:
    """Every part of a network, by name.

    Args:
        config: of EmoSEM or SCA.
        sam: a whole `segment_anything.modeling.Sam`; counted whole, as the paper does, its frozen prompt
            encoder and IoU head included.
        clip_visual: open_clip's image tower; None for SCA, which has none.
    """
    with torch.device("meta"):
        model = build_emosem(config).eval()
        rows = torch.zeros(1, dtype=torch.long)
        grid = torch.zeros(1, config.dim, config.grid, config.grid)
        prompt = torch.zeros(1, PROMPT, config.dim)
        picture = torch.zeros(1, 3, config.image_size, config.image_size)
    sam, parts = sam.to("meta"), {}
    parts["SAM image encoder"] = _part(sam.image_encoder, lambda: sam.image_encoder(picture), frozen=True)
    parts["SAM prompt encoder"] = Part(_count(sam.prompt_encoder), 0, 0)
    masks = range(model.mask_decoder.mask_tokens.num_embeddings)

    def decode() -> Any:
        return model.mask_decoder(grid, rows, prompt, None, masks=masks)

    trainable = _count(model.mask_decoder, only_trainable=True)
    parts["SAM mask decoder"] = Part(_count(sam.mask_decoder), trainable, multiply_adds(decode))
    if clip_visual is not None:
        parts["CLIP image encoder"] = _clip(clip_visual)
    parts |= _bridges(model, decode)
    return parts


def _clip(visual: Any) -> Part:
    visual = visual.to("meta")
    size: Any = visual.image_size
    side = size if isinstance(size, int) else size[0]
    picture = torch.zeros(1, 3, side, side, device="meta")
    positions: Any = visual.positional_embedding
    tokens, width = positions.shape
    unseen = visual.transformer.layers * 2 * tokens * tokens * width  # q k^T and its product with v
    return Part(_count(visual), 0, multiply_adds(lambda: visual(picture)) - unseen)


def _bridges(model: EmoSEM, decode: Callable[[], Any]) -> dict[str, Part]:
    """The parts between the encoders, and the language model."""
    config = model.config
    width: int = model.captioner.gpt2.config.n_embd
    parts: dict[str, Part] = {}
    length = 1 if config.paradigm == "multi" else PROMPT + 1
    if model.emotion_projector is not None:
        parts["emotion projector"] = _tokens_through(model.emotion_projector, PROMPT, width)
    if model.prefix_projector is not None:
        parts["prefix projector"] = _tokens_through(model.prefix_projector, length, config.dim)
    if model.caption_mixer is not None:
        mixer, decoded, pe = model.caption_mixer, decode(), model.mask_decoder.positions()
        parts["caption mixer"] = _part(mixer, lambda: mixer(decoded, pe))
        length = mixer.length
    length = 1 if config.prefix == "none" else length  # a start of text stands in
    parts["language model"] = _part(model.captioner, lambda: _read(model, length + TEXT))
    return parts


def _read(model: EmoSEM, length: int) -> Any:
    """The language model over a text, with word scores at every position, as published.

    `Captioner.forward` leaves out those of the prefix, which nothing reads.
    """
    gpt2 = model.captioner.gpt2
    return gpt2(
        inputs_embeds=torch.zeros(1, length, gpt2.config.n_embd, device="meta"),
        attention_mask=torch.ones(1, 1, length, length, dtype=torch.bool, device="meta"),
        position_ids=torch.zeros(1, length, dtype=torch.long, device="meta"),
        encoder_hidden_states=(
            torch.zeros(1, PATCHES, model.config.visual_dim, device="meta")
            if model.captioner.cross_attention
            else None
        ),
        use_cache=False,
    )


def _tokens_through(module: nn.Module, length: int, width: int) -> Part:
    tokens = torch.zeros(1, length, width, device="meta")
    return _part(module, lambda: module(tokens))


def _part(module: nn.Module, call: Callable[[], Any], frozen: bool = False) -> Part:
    trainable = 0 if frozen else _count(module, only_trainable=True)
    return Part(_count(module), trainable, multiply_adds(call))


def _count(module: nn.Module, only_trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not only_trainable)


def published() -> dict[str, dict[str, Part]]:
    """Inventories of the three models of Tab. 2 and 3: EmoSEM, SCA_base, SCA_huge after fine-tuning."""
    import open_clip
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        base, huge = (sam_model_registry[name]() for name in ("vit_b", "vit_h"))
    clip = open_clip.create_model("ViT-B-16", device="meta", load_weights=False, pretrained_text=False).visual
    gpt2 = EmoSEMConfig(sca=ScaConfig(), language_model={"n_layer": 12})
    large = {"n_layer": 36, "n_embd": 1280, "n_head": 20, "tie_word_embeddings": False}
    return {
        "EmoSEM": inventory(EmoSEMConfig(), base, clip),
        "SCA_base": inventory(gpt2, base, None),
        "SCA_huge-FT": inventory(EmoSEMConfig(sca=ScaConfig(), language_model=large), huge, None),
    }
