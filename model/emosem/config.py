"""What EmoSEM is made of, and where that is read again: the config.json beside a trained model's weights."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from model.emosem.provenance import Provenance
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import STRICT
from pipeline.common.sums import check_sum

Paradigm = Literal["single", "multi"]
Prefix = Literal["mask+prompt", "mask", "prompt", "none"]
Finetune = Literal["mask-head", "mask-decoder"]
Visual = Literal["picture", "region"]

# "gener", "ate", " the", " mask", " for", " the", " emotion", and each emotion
_GPT2_PROMPT = (8612, 378, 262, 9335, 329, 262, 9942)
_GPT2_EMOTIONS = ((30184,), (25030,), (2695, 434), (14067,), (8993,), (16234,), (3252,), (25303,))


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ScaConfig:
    """What SCA has in the place of EmoSEM's prefix projector; the defaults are its released setting."""

    mixer_depth: Annotated[int, Field(gt=0)] = 12
    """Two-way blocks of the caption mixer."""
    caption_tokens: Annotated[int, Field(gt=0)] = 8
    """Learned queries that become the language model's prefix."""
    task_tokens: Annotated[int, Field(gt=0)] = 6
    """Learned tokens before them, for each task."""
    tasks: Annotated[int, Field(gt=0)] = 2
    """Recognition and captioning; only the last one's tokens are used."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class EmoSEMConfig:
    """What the network is made of; the defaults are the paper's. Stored as config.json beside the weights."""

    paradigm: Paradigm = "single"
    """single: one mask for the emotion asked for; multi: eight mask tokens, one an emotion (Sec. 3.5)."""
    prefix: Prefix = "mask+prompt"
    """The language model's prefix (Tab. 4). Multi has no prompt: mask or none."""
    visual: Visual = "picture"
    """What the language model's cross-attention sees: CLIP's patch tokens of the picture (paper), or one
    token of what the mask encloses, as SAM's decoder sees it."""
    finetune: Finetune = "mask-head"
    """What of SAM's decoder trains: the mask head, its mixer frozen (paper), or all of it (Fig. 7)."""
    ambiguity_aware: bool = False
    """Which of SAM's mask tokens stand in the prefix (Tab. 5): the default mask's, or those of its three
    candidates for an ambiguous prompt. The mask itself is the default one either way."""
    detach_prompt: bool = False
    """Keep the mask decoder's gradients out of the shared word embedding."""
    sca: ScaConfig | None = None
    """Instead of the prefix projector and cross-attention, SCA's caption mixer (Tab. 2); null for EmoSEM."""
    dim: Annotated[int, Field(gt=0)] = 256
    """d_k: channels of SAM's grid, of prompts and mask tokens."""
    grid: Annotated[int, Field(gt=0)] = 64
    """Cells a side of SAM's grid; masks have 4 times as many pixels."""
    image_size: Annotated[int, Field(gt=0)] = 1024
    """Pixels a side of SAM's padded square input."""
    mixer_depth: Annotated[int, Field(gt=0)] = 2
    """N of Sec. 4.1: two-way blocks."""
    mixer_heads: Annotated[int, Field(gt=0)] = 8
    """Attention heads of the mixer."""
    mixer_mlp_dim: Annotated[int, Field(gt=0)] = 2048
    """Inner width of the mixer's MLP."""
    visual_dim: Annotated[int, Field(gt=0)] = 768
    """Channels of CLIP's patch tokens; must be the language model's width."""
    language_model: dict[str, Any] = Field(default_factory=lambda: {"n_layer": 6})
    """Keywords of transformers' GPT2Config; the default is distilgpt2."""
    prompts: tuple[tuple[int, ...], ...] = tuple((*_GPT2_PROMPT, *word) for word in _GPT2_EMOTIONS)
    """Token ids of the emotional prompt of each emotion, in EMOTIONS' order; the default is GPT-2's."""
    max_tokens: Annotated[int, Field(ge=2)] = 25
    """Budget of an explanation, its end-of-text token included (Sec. 4.1)."""

    def __post_init__(self) -> None:
        if self.paradigm == "multi" and self.prefix not in ("mask", "none"):
            raise ValueError(f"multi has no prompt, so prefix {self.prefix!r} cannot be; use mask or none")
        if self.paradigm == "multi" and (self.ambiguity_aware or self.sca):
            raise ValueError("multi's mask tokens are emotions: ambiguity_aware and sca are for single")
        if self.sca and self.visual != "picture":
            raise ValueError(
                f"sca has no cross-attention, so visual {self.visual!r} cannot be; leave it alone"
            )
        if self.sca and (self.prefix != "mask+prompt" or self.ambiguity_aware):
            raise ValueError("sca has a prefix of its own: leave prefix and ambiguity_aware alone")
        if len(self.prompts) != len(EMOTIONS) or not all(self.prompts):
            raise ValueError(f"prompts must be {len(EMOTIONS)} lists of token ids, not {self.prompts}")


DAMAGED = "save or train it again, or delete SHA256SUMS if you changed the file yourself"
"""What to do about a file of a saved model that is not as it was written."""


def read_config(folder: Path) -> tuple[EmoSEMConfig, Provenance | None]:
    """What a saved model is made of, and from, when known.

    Raises `UserError` when there is no model, or another config.json than was saved.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; name that of a trained model, such as runs/single, which "
            "`python cli.py train` makes"
        )
    if (folder / "config.json").is_file():
        check_sum(folder / "config.json", DAMAGED)
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        record = values.pop("about", None)
        config = pydantic.TypeAdapter(EmoSEMConfig).validate_json(json.dumps(values))
        provenance = record and pydantic.TypeAdapter(Provenance).validate_json(json.dumps(record))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{folder} holds no trained model (config.json, model.safetensors); a run writes them when it "
            f"has ended: {error}"
        ) from None
    return config, provenance


def method_name(config: EmoSEMConfig) -> str:
    """What the score table calls a model: the network, and what departs from the paper's (Tab. 4, 5, 6)."""
    untied = not config.language_model.get("tie_word_embeddings", True)
    whole = "mask" if config.paradigm == "multi" else "mask+prompt"
    departures = {
        "no-prefix" if config.prefix == "none" else f"prefix-{config.prefix}": config.prefix != whole,
        "ambiguity-aware": config.ambiguity_aware,
        "ft-md": config.finetune == "mask-decoder",
        "detached-prompt": config.detach_prompt,
        "untied-words": untied and config.sca is None,
    }
    network = f"emosem-{config.paradigm}{'-region' * (config.visual == 'region')}"
    if config.sca is not None:
        network = "sca-untied" if untied else "sca-base"
    return ":".join([network, *(name for name, there in departures.items() if there)])
