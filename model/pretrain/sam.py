"""Trains the small SAM on gallery scenes: promptable segmentation, and prompts that mean kinds of things.

The encoder first learns alone what things are, from an auxiliary classifier; then all parts learn together.
Three kinds of prompt, each decoded for many targets of many pictures at once:

- *visual*, as in SAM: a point or a box picks one motif or one part of the scenery; single mask and the best
  of the three ambiguity-aware ones, and the IoU head.
- *semantic*, as in SAM's text-to-mask experiment: one sparse token, the mean of embeddings of one to eight
  kinds through a linear layer, asks for all visible pixels of these kinds. It stands alone or among
  seven tokens that say nothing, as EmoSEM's emotion word stands in its prompt.
- *semantic mask tokens*: the same embeddings added to SAM's mask token 0, eight at a time and without any
  prompt, as in EmoSEM's multi-mask paradigm.

The kind embeddings are thrown away afterwards. What stays is a frozen encoder and mixer that can follow such
tokens; which kinds an emotion means is left for EmoSEM to learn. Kinds are never grouped by emotion here.
"""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from pydantic import Field
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from model.pretrain.clip import save_half
from model.pretrain.optimizers import muon_and_adamw, step
from model.pretrain.pictures import Pictures, load_pictures
from model.pretrain.prompting import Teacher, decode, dense_loss, iou, mask_loss, view, visual_prompts
from model.pretrain.sam_quality import evaluate, probe
from model.pretrain.segmentation_data import SLOTS, draw_sets, present_kinds, set_masks, visual_targets
from model.pretrain.training_state import TrainingState, trapezoid
from model.train.precision import autocast
from pipeline.backbones.sam import SamConfig, build_sam
from pipeline.common.files import write_json
from pipeline.common.fingerprint import as_json, fingerprint
from pipeline.common.lock import writes
from pipeline.common.params import STRICT
from pipeline.common.progress import Meter


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SamPretrainParams:
    """The recipe."""

    seed: Annotated[int, Field(ge=1_000_000)] = 1_000_100
    """Seed of the training scenes and of the weights; the held-out scenes have the next one."""
    scenes: Annotated[int, Field(gt=0)] = 1400
    """Training scenes."""
    held_out: Annotated[int, Field(gt=0)] = 120
    """Scenes on which IoU is measured."""
    encoder_steps: Annotated[int, Field(ge=0)] = 250
    """Optimizer steps of the encoder alone on the auxiliary loss: what things are, before how to be asked."""
    encoder_batch: Annotated[int, Field(gt=0)] = 16
    """Pictures per step of the encoder alone."""
    steps: Annotated[int, Field(gt=0)] = 2800
    """Optimizer steps of all parts together. Fewer or more may be set while a training runs or after it: it
    goes on from its last state before the cooldown."""
    batch: Annotated[int, Field(gt=0)] = 12
    """Pictures per step of these."""
    visual: Annotated[int, Field(gt=0)] = 2
    """Visual prompts per picture and step."""
    semantic: Annotated[int, Field(gt=0)] = 2
    """Semantic prompts per picture and step; a group of `SLOTS` semantic mask tokens comes on top."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of embeddings, convolutions and vectors (AdamW). It rises at the start, stays, and
    falls at the end."""
    matrix_lr: Annotated[float, Field(gt=0)] = 2e-3
    """The same of linear layers' weights (Muon, scaled to AdamW's size of steps)."""
    warmup: Annotated[int, Field(ge=0)] = 60
    """Steps in which it rises, at the start and again when the other parts join the encoder."""
    cooldown: Annotated[int, Field(gt=0)] = 300
    """Steps in which it falls, out of `steps`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of both; vectors have none."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that draw the scenes; 0: one per core."""


@writes(lambda out, params, device, kept: [kept])
def train_sam(out: Path, params: SamPretrainParams, device: str, kept: Path) -> dict[str, Any]:
    """Train from random weights; write sam.safetensors and sam.json into `out`.

    Args:
        out: folder of the weights.
        params: the recipe.
        device: torch device name.
        kept: folder for what a killed run goes on from: drawn pictures, and the training's state. A run that
            was killed at any time ends with the same bytes as one that was not, on the same machine with as
            many threads.

    Returns:
        Held-out quality and counts: see `evaluate` and `probe`.

    Raises:
        UserError: another training uses `kept`.
        RunFailed: see `fit_sam`.
    """
    torch.manual_seed(params.seed)
    config = SamConfig()
    sam = build_sam(config).to(device)
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    align(sam)
    teacher = Teacher(config.out_chans).to(device)
    start = time.monotonic()
    pictures = load_pictures(params.seed, params.scenes, params.workers, device, kept)
    drawn = time.monotonic()
    last, spent = fit_sam(sam, teacher, pictures, params, kept)
    write_json(out / "sam.json", dataclasses.asdict(config))
    save_half(sam, out / "sam.safetensors")
    held_out = load_pictures(params.seed + 1, params.held_out, params.workers, device, kept)
    return {
        **evaluate(sam, teacher, held_out),
        **probe(sam, pictures, held_out),
        "loss": last,
        "parameters": sum(p.numel() for p in sam.parameters()),
        "recipe": as_json(params),
        "draw_seconds": round(drawn - start),
        "processor_seconds": round(spent),
    }


def align(sam: Sam) -> None:
    """Let the untrained mixer's queries and keys be the same projection, so that like attends to like."""
    for block in sam.mask_decoder.transformer.layers:
        for attention in (block.cross_attn_token_to_image, block.cross_attn_image_to_token):
            attention.k_proj.load_state_dict(attention.q_proj.state_dict())


def fit_sam(
    sam: Sam, teacher: Teacher, pictures: Pictures, params: SamPretrainParams, kept: Path
) -> tuple[dict[str, float], float]:
    """The encoder on the auxiliary loss, then all parts on all losses; goes on from what `kept` holds.

    Returns:
        The last step's losses, and the processor seconds of all steps.

    Raises:
        RunFailed: the loss is no number any more.
    """
    device = pictures.images.device
    parts = nn.ModuleDict({"sam": sam, "teacher": teacher}).train()
    optimizers = muon_and_adamw(parts, params.lr, params.matrix_lr, params.weight_decay)
    total = params.encoder_steps + params.steps
    state = TrainingState(
        kept, _identity(params, device), dict(parts.items()), optimizers, total, params.cooldown
    )
    done = state.resume()
    print(f"sam: step {done}/{total}; what a stopped run goes on from is kept in {kept}", flush=True)
    found: dict[str, Tensor] = {}
    for phase, losses_of, end, batch in (
        ("encoder alone", encoder_losses, params.encoder_steps, params.encoder_batch),
        ("all parts", losses, total, params.batch),
    ):
        meter = Meter(f"sam: {phase}", max(end - state.step, 0), unit="step")
        while state.step < end:
            torch.manual_seed(params.seed * 1_000_003 + state.step)
            chosen = torch.randint(len(pictures.images), (batch,)).to(device)
            found = losses_of(sam, teacher, pictures, chosen, params)
            loss = sum(found.values(), torch.zeros((), device=device))
            step("sam", parts, optimizers, loss, _share_of_lr(state.step, params))
            state.done()
            meter.add()
            if state.step % 50 == 0 or state.step == end:
                shown = ", ".join(f"{name} {value.item():.3f}" for name, value in found.items())
                print(f"sam: step {state.step}/{total}, {shown}", flush=True)
    parts.eval()
    return {name: round(value.item(), 4) for name, value in found.items()}, state.seconds


def _identity(params: SamPretrainParams, device: torch.device) -> str:
    """Of all that decides a state: not how many steps follow, nor on what is measured."""
    recipe = {
        k: v for k, v in as_json(params).items() if k not in ("steps", "cooldown", "held_out", "workers")
    }
    return fingerprint(recipe, as_json(SamConfig()), device.type, torch.__version__)


def _share_of_lr(step: int, params: SamPretrainParams) -> float:
    if step < params.encoder_steps:
        return min(1.0, (step + 1) / (params.warmup + 1))
    return trapezoid(step - params.encoder_steps, params.steps, params.warmup, params.cooldown)


def encoder_losses(
    sam: Sam, teacher: Teacher, pictures: Pictures, chosen: Tensor, params: SamPretrainParams
) -> dict[str, Tensor]:
    """The loss of a step of the encoder alone on the pictures `chosen` (B,)."""
    pixels, _, classes = view(sam, pictures, chosen)
    with autocast(pixels.device):
        return {"dense": dense_loss(teacher, sam.image_encoder(pixels), classes)}


def losses(
    sam: Sam, teacher: Teacher, pictures: Pictures, chosen: Tensor, params: SamPretrainParams
) -> dict[str, Tensor]:
    """All losses of one step on the pictures `chosen` (B,)."""
    pixels, owners, classes = view(sam, pictures, chosen)
    device = pixels.device
    dense_pe = sam.prompt_encoder.get_dense_pe()  # outside autocast: its sines need float32 phases
    own_tokens = sam.mask_decoder.mask_tokens.weight
    found: dict[str, Tensor] = {}

    target = visual_targets(pictures, chosen, owners, params.visual)[0].flatten(0, 1)
    boxed = torch.rand(len(target), device=device) < 0.5
    prompts = visual_prompts(sam, target, boxed, noise=0.05)
    sets = draw_sets(present_kinds(classes), params.semantic + SLOTS)
    set_target = set_masks(sets, classes)
    with autocast(device):
        grids = sam.image_encoder(pixels)
        found["dense"] = dense_loss(teacher, grids, classes)
        many = grids.repeat_interleave(params.visual, 0)
        visual, scores = decode(sam, many, own_tokens.expand(len(many), -1, -1), prompts, dense_pe)
        asked = sets[:, : params.semantic].flatten(0, 1)
        many = grids.repeat_interleave(params.semantic, 0)
        tokens = teacher.prompts(asked)
        alone = tokens[:, -1:] if torch.rand(()) < 0.3 else tokens
        semantic, semantic_scores = decode(sam, many, own_tokens.expand(len(many), -1, -1), alone, dense_pe)
        slots = own_tokens[:1] + teacher.to_mask_token(teacher.meaning(sets[:, params.semantic :]))
        multi, _ = decode(sam, grids, slots, grids.new_zeros(len(grids), 0, grids.shape[1]), dense_pe)
    visual, semantic, multi = visual.float(), semantic[:, :1].float(), multi.float()
    each = mask_loss(visual, target[:, None])
    each = each[:, 0] + each[:, 1:].amin(1)
    shown = target.flatten(1).amax(1) > 0.5  # a zoom can have cut it away
    found["visual"] = (each * shown).sum() / shown.sum().clamp(min=1)
    semantic_target = set_target[:, : params.semantic].flatten(0, 1)[:, None]
    found["semantic"] = mask_loss(semantic, semantic_target).mean()
    found["multi"] = mask_loss(multi, set_target[:, params.semantic :]).mean()
    truth = iou(visual.detach(), target[:, None])
    found["iou"] = F.mse_loss(scores.float(), truth)
    found["iou"] = found["iou"] + F.mse_loss(
        semantic_scores[:, :1].float(), iou(semantic.detach(), semantic_target)
    )
    return found
