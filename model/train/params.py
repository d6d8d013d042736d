"""What decides how EmoSEM is trained: section `train` of the params (Sec. 4.1)."""

import dataclasses
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from model.emosem.config import Finetune, Paradigm, Prefix, Visual
from pipeline.common.errors import UserError
from pipeline.common.params import STRICT, parse_section

SelectBy = Literal["seg_pr50", "language", "dice", "focal"]
Visit = Literal["utterance", "pair"]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class TrainParams:
    """How EmoSEM is trained. The defaults suit the built-in gallery; (paper: ...) gives Sec. 4.1's value."""

    model: Literal["emosem", "sca"] = "emosem"
    """The network: EmoSEM, or SCA, the paper's own comparison (Tab. 2), see `model.emosem.sca`."""
    paradigm: Paradigm = "single"
    """single or multi, see `EmoSEMConfig`."""
    prefix: Prefix = "mask+prompt"
    """The language model's prefix, see `EmoSEMConfig` (Tab. 4)."""
    visual: Visual = "picture"
    """What the words look at: the picture (paper), or what the mask encloses, see `EmoSEMConfig`."""
    finetune: Finetune = "mask-head"
    """What of SAM's decoder trains (Fig. 7)."""
    ambiguity_aware: bool = False
    """Three mask tokens in the prefix instead of the default one (Tab. 5)."""
    untie_words: bool = False
    """Learn GPT-2's output layer apart from its word embedding, as SCA_huge-FT's size says it did."""
    detach_prompt: bool = False
    """Keep the mask loss out of the word embedding that prompt and language model share."""
    epochs: Positive = 4
    """Passes over the training samples (paper: 10)."""
    visit: Visit = "utterance"
    """What an epoch visits once: every utterance, or every (artwork, emotion) with its next utterance."""
    batch_size: Positive = 32
    """Samples of a micro-batch (paper: 4)."""
    accumulate: Positive = 1
    """Micro-batches of an optimiser step, on each process (paper: 4)."""
    window: Positive = 1
    """Artworks whose samples are mixed; 1 segments each artwork once an epoch, see `epoch_batches`."""
    multi_loss: Literal["mean", "sum"] = "mean"
    """multi: the mean over a batch's samples, or the sum over an artwork's emotions (paper: sum, Eq. 10)."""
    learning_rate: Rate = 1e-3
    """Of projectors, mask head and mask tokens (paper: 1e-4 for single, 8e-5 for multi)."""
    language_learning_rate: Rate = 1e-3
    """Of GPT-2 (paper: 2e-4)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's; the paper gives none."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps over which learning rates rise from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """After the warm-up: decay to 0, straight or along half a cosine, or constant. The paper gives none; its
    forebear decays straight."""
    clip_norm: Rate | None = 1.0
    """Largest gradient norm, over all parameters; null for no clipping (paper: none given)."""
    binarise: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Threshold that makes pseudo-masks hard; null keeps them soft (paper: soft)."""
    language_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout within GPT-2; null is its own (paper: none given; distilgpt2 has 0.1, the built-in one 0)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the language loss (SCA's release: 0.1; the paper gives none)."""
    max_tokens: Annotated[int, Field(ge=2)] = 25
    """Budget of an explanation, its end-of-text token included (paper: 25; SCA's release: 20)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights and losses are float32 either way."""
    seed: int = 0
    """Decides new weights, sample order and dropout."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Threads that read batches ahead of time; never changes a result."""
    stream: str | None = None
    """URL of a shards folder to train from instead of the pipeline's own, by fsspec: s3://, https:// …; the
    features and masks folders lie beside it. An artwork is fetched when it is visited, and checked."""
    resident: bool = False
    """Keep all training features in the device's memory, as stored; int8 ones of ArtEmis take 92 GB."""
    compile: bool = False
    """Compile the step, on a GPU into CUDA graphs, over batches padded to a few shapes. For long runs: the
    first steps take minutes. Dropout draws other numbers than without."""
    checkpoint_every: Positive = 200
    """Optimiser steps between checkpoints; one is also written after each epoch and when asked to stop."""
    log_every: Positive = 10
    """Optimiser steps between points of the curves."""
    validation_artworks: Positive = 48
    """Artworks of the validation split judged after each epoch."""
    select: Literal["best", "last"] = "last"
    """Whose weights the run ends with: the epoch's that is best by `select_by`, or the last's."""
    select_by: SelectBy = "seg_pr50"
    """Validation's number for `select: best`: Pr@50 against the pseudo-masks (high), or a loss (low)."""
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=lambda: {
            "single": {"paradigm": "single"},
            "multi": {"paradigm": "multi", "prefix": "mask"},
            "no-prefix": {"paradigm": "single", "prefix": "none"},
        }
    )
    """The models to train by name, one folder in runs/ each: what each changes of the keys above."""

    def __post_init__(self) -> None:
        for name in self.variants:
            self.of(name)

    def of(self, variant: str) -> "TrainParams":
        """The parameters of one variant. Raises `UserError` for one that `variants` does not hold rightly."""
        if variant not in self.variants:
            raise UserError(f"train.variants has no {variant!r}; it has {', '.join(self.variants)}")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "variants"}
        changed = values | self.variants[variant] | {"variants": {}}
        return parse_section(changed, f"train.variants.{variant}", TrainParams, "params")
