"""Trains the small CLIP: crops of gallery scenes against phrases and utterances that name what they show.

The symmetric contrastive loss of CLIP, with all that fits as positives: a crop fits every text of the batch
that names its kind and contradicts none of its look (a crop of a red house fits "a house" and not "a blue
house"). Scenery crops and texts, which no utterance of a feeling names, teach that background is nothing.
Badly framed crops are what a text must be told from: a detector's regions are ranked by the result.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from pydantic import Field
from torch import Tensor, nn

from model.pretrain.clip_boxes import cut, recolour
from model.pretrain.clip_data import Scenes
from model.pretrain.clip_loss import contrastive_loss, fits
from model.pretrain.clip_quality import evaluate
from model.pretrain.optimizers import muon_and_adamw, step
from model.pretrain.scenes import VIEW, corpus, load_canvases
from model.pretrain.training_state import TrainingState, trapezoid
from model.train.precision import attention, autocast
from pipeline.backbones.clip import BPE, Clip, build_clip
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json, fingerprint
from pipeline.common.lock import writes
from pipeline.common.params import STRICT
from pipeline.common.progress import Meter


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ClipPretrainParams:
    """The recipe."""

    seed: Annotated[int, Field(ge=1_000_000)] = 1_000_100
    """Seed of the training scenes and of the weights; the held-out scenes have the next one."""
    scenes: Annotated[int, Field(gt=0)] = 2000
    """Training scenes."""
    held_out: Annotated[int, Field(gt=0)] = 120
    """Scenes on which retrieval is measured."""
    steps: Annotated[int, Field(gt=0)] = 700
    """Optimizer steps. Fewer or more may be set while a training runs or after it: it goes on from its last
    state before the cooldown."""
    batch: Annotated[int, Field(gt=0)] = 32
    """Scenes per step; each gives the crops below, one scenery crop and one view."""
    motifs_per_scene: Annotated[int, Field(gt=0)] = 4
    """Motif crops per scene and step."""
    framings_per_scene: Annotated[int, Field(ge=0)] = 6
    """Badly framed crops per scene and step."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of embeddings, projections and vectors (AdamW). It rises at the start, stays, and
    falls at the end."""
    matrix_lr: Annotated[float, Field(gt=0)] = 2e-3
    """The same of the transformers' matrices (Muon, scaled to AdamW's size of steps)."""
    warmup: Annotated[int, Field(ge=0)] = 40
    """Steps in which it rises."""
    cooldown: Annotated[int, Field(gt=0)] = 200
    """Steps in which it falls, out of `steps`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of both; vectors have none."""
    merges: Annotated[int, Field(gt=0)] = 1500
    """Merges of the byte-pair encoding."""
    sentences: Annotated[int, Field(gt=0)] = 60_000
    """Sentences that the byte-pair encoding is learned from."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that draw the scenes; 0: one per core."""


def small_config(vocab_size: int) -> dict[str, Any]:
    """``clip.json``: 6 x 6 patch tokens of width 128, as wide as the small language model."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 96, "patch_size": 16, "width": 128, "layers": 4, "head_width": 32},
        "text_cfg": {"context_length": 32, "vocab_size": vocab_size, "width": 128, "heads": 4, "layers": 3},
    }


@writes(lambda out, params, device, kept: [kept])
def train_clip(out: Path, params: ClipPretrainParams, device: str, kept: Path) -> dict[str, Any]:
    """Train from random weights; write clip.safetensors, clip.json and bpe.txt.gz into `out`.

    Args:
        out: folder of the weights.
        params: the recipe.
        device: torch device name.
        kept: folder for the training's state, from which a killed run goes on to the same bytes, on the same
            machine with as many threads; its scenes are drawn again.

    Returns:
        Held-out quality and counts: see `evaluate`; the loss is that of one batch of held-out scenes.

    Raises:
        UserError: another training uses `kept`.
        RunFailed: the loss is no number any more.
    """
    start = time.monotonic()
    train_bpe(out, params)
    tokenizer = SimpleTokenizer(str(out / BPE))
    config = small_config(tokenizer.vocab_size)
    torch.manual_seed(params.seed)
    model = build_clip(config).to(device)
    canvases = load_canvases(params.seed, params.scenes, params.workers)
    scenes = Scenes(canvases, tokenizer, model.context_length, device)
    drawn = time.monotonic()
    spent = fit_clip(model, scenes, params, kept)
    write_json(out / "clip.json", config)
    save_half(model, out / "clip.safetensors")
    held_out = load_canvases(params.seed + 1, params.held_out, params.workers)
    loss = held_out_loss(model, Scenes(held_out, tokenizer, model.context_length, device), params)
    quality = evaluate(Clip(model, tokenizer, device), held_out)
    return {
        **quality,
        "loss": round(loss, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": as_json(params),
        "draw_seconds": round(drawn - start),
        "processor_seconds": round(spent),
    }


def train_bpe(out: Path, params: ClipPretrainParams) -> None:
    """The tokenizer's merges, from the grammar alone."""
    from model.pretrain.tokenizers import train_clip_bpe

    train_clip_bpe(corpus(params.seed, params.sentences), out / BPE, params.merges)


def fit_clip(model: Any, scenes: Scenes, params: ClipPretrainParams, kept: Path) -> float:
    """The training loop; goes on from what `kept` holds.

    Returns:
        The processor seconds of all steps.

    Raises:
        RunFailed: the loss is no number any more.
    """
    optimizers = muon_and_adamw(model, params.lr, params.matrix_lr, params.weight_decay)
    identity = _identity(params, scenes.images.device)
    state = TrainingState(kept, identity, {"clip": model}, optimizers, params.steps, params.cooldown)
    done = state.resume()
    print(f"clip: step {done}/{params.steps}; what a stopped run goes on from is kept in {kept}", flush=True)
    meter = Meter("clip", params.steps - done, unit="step")
    model.train()
    while state.step < params.steps:
        number = params.seed * 1_000_003 + state.step
        torch.manual_seed(number)
        loss = batch_loss(model, scenes, np.random.default_rng(number), params)
        share = trapezoid(state.step, params.steps, params.warmup, params.cooldown)
        step("clip", model, optimizers, loss, share)
        state.done()
        meter.add()
        if state.step % 50 == 0 or state.step == params.steps:
            print(f"clip: step {state.step}/{params.steps}, loss {loss.item():.3f}", flush=True)
    model.eval()
    return state.seconds


def _identity(params: ClipPretrainParams, device: torch.device) -> str:
    """Of all that decides a state: not how many steps follow, nor on what is measured."""
    recipe = {
        k: v for k, v in as_json(params).items() if k not in ("steps", "cooldown", "held_out", "workers")
    }
    return fingerprint(recipe, small_config(0), device.type, torch.__version__)


def batch_loss(model: Any, scenes: Scenes, rng: np.random.Generator, params: ClipPretrainParams) -> Tensor:
    """The loss on a random batch."""
    device, table = scenes.images.device, scenes.table
    batch = scenes.batch(rng, params.batch, params.motifs_per_scene, params.framings_per_scene)
    crops = recolour(cut(scenes.images[batch.chosen], batch.boxes, model.visual.image_size[0]))
    mean = torch.tensor(OPENAI_DATASET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_DATASET_STD, device=device).view(1, 3, 1, 1)
    subjects = batch.subjects.flatten()
    pick = torch.randint(table.tokens.shape[1], subjects.shape).to(device)
    named = table.named[subjects, pick]
    with autocast(device), attention(device):
        image = model.encode_image((crops - mean) / std, normalize=True)
        text = model.encode_text(table.tokens[subjects, pick].long(), normalize=True)
    weights = fits(batch.traits.flatten(0, 1), named, batch.shares.flatten(0, 1))
    # A whole picture fits what is said of its motifs, but none of them is to be looked for in it.
    views = (batch.traits[..., 0, 0] == VIEW).flatten()
    unasked = views[:, None] & (weights > 0) & (named[:, 0] != VIEW)
    scale = model.logit_scale.exp().clamp(max=100)
    return contrastive_loss(image.float(), text.float(), scale, weights, unasked)


@torch.no_grad()
def held_out_loss(model: Any, scenes: Scenes, params: ClipPretrainParams) -> float:
    """The loss on a batch of scenes, always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        return float(batch_loss(model, scenes, np.random.default_rng(params.seed), params))


def save_half(model: nn.Module, path: Path) -> None:
    """Write a state dict as float16 safetensors, in the order of its sorted names."""
    from safetensors.torch import save

    state = model.state_dict()
    halves = {name: state[name].detach().half().contiguous().cpu() for name in sorted(state)}
    write_bytes(path, save(halves))
