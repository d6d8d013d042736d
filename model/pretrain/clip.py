"""Trains the small CLIP: crops of gallery scenes against phrases and utterances that name what they show.

The symmetric contrastive loss of CLIP, with all that fits as positives: a crop fits every text of the batch
that names its kind and contradicts none of its look (a crop of a red house fits "a house" and not "a blue
house"). Scenery crops and texts, which no utterance of a feeling names, teach that background is nothing.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import roi_align

from model.pretrain.scenes import CLASSES, FIRST_SCENERY, Canvas, Subject, corpus, load_canvases
from model.train.precision import attention, autocast
from pipeline.backbones.clip import BPE, Clip, build_clip
from pipeline.common.files import write_bytes, write_json
from pipeline.common.params import STRICT

MOST_SUBJECTS = 10
"""Subjects a view can show in the positives table; scenes hold at most 7 motifs."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ClipPretrainParams:
    """The recipe."""

    seed: Annotated[int, Field(ge=1_000_000)] = 1_000_100
    """Seed of the training scenes and of the weights; the held-out scenes have the next one."""
    scenes: Annotated[int, Field(gt=0)] = 2000
    """Training scenes."""
    held_out: Annotated[int, Field(gt=0)] = 120
    """Scenes on which retrieval is measured."""
    steps: Annotated[int, Field(gt=0)] = 600
    """Optimizer steps."""
    batch: Annotated[int, Field(gt=0)] = 40
    """Scenes per step; each gives `motifs_per_scene` motif crops, one scenery crop and one view."""
    motifs_per_scene: Annotated[int, Field(gt=0)] = 4
    """Motif crops per scene and step."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the one-cycle learning rate (AdamW)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW's."""
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


@dataclasses.dataclass(frozen=True)
class SubjectTable:
    """Subjects of all scenes as tensors; S in all, padded to `MOST_SUBJECTS` per scene by -1."""

    boxes: Tensor
    """float32 (S, 4), canvas pixels."""
    traits: Tensor
    """int64 (S, 4): label, then colour, state and size as numbers."""
    tokens: Tensor
    """int32 (S, TEXTS, context)."""
    named: Tensor
    """int64 (S, TEXTS, 4): what each text names of the traits, -1 where it says nothing."""


class Scenes:
    """Canvases and their subjects on the device, and random batches of them."""

    def __init__(
        self, canvases: Sequence[Canvas], tokenizer: SimpleTokenizer, context: int, device: str
    ) -> None:
        images = np.stack([canvas.image for canvas in canvases])
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        self.sizes = torch.tensor([canvas.size for canvas in canvases], device=device)
        subjects: list[Subject] = []
        self.rows: list[tuple[list[int], list[int], int]] = []
        for canvas in canvases:
            start = len(subjects)
            subjects += [*canvas.motifs, *canvas.scenery, canvas.view]
            motifs = list(range(start, start + len(canvas.motifs)))
            scenery = list(range(start + len(canvas.motifs), len(subjects) - 1))
            self.rows.append((motifs, scenery, len(subjects) - 1))
        self.table = _table(subjects, tokenizer, context, device)

    def batch(
        self, rng: np.random.Generator, scenes: int, motifs: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A random batch of scenes * (motifs + 2) crops and a text for each.

        Returns:
            Scene indices (G,); with K = motifs + 2, boxes (G, K, 4) before jitter, the subjects
            (G, K, MOST_SUBJECTS) that each crop shows (-1: none), the subject (G, K) of its text.
        """
        chosen = rng.integers(len(self.rows), size=scenes)
        shows = np.full((scenes, motifs + 2, MOST_SUBJECTS), -1)
        for row, scene in enumerate(chosen.tolist()):
            own, scenery, view = self.rows[scene]
            picks = rng.choice(own, motifs, replace=len(own) < motifs)
            shows[row, :motifs, 0] = picks
            shows[row, motifs, 0] = rng.choice(scenery) if scenery else rng.choice(own)
            everything = [view, *own][:MOST_SUBJECTS]
            shows[row, motifs + 1, : len(everything)] = everything
        device = self.images.device
        shown = torch.from_numpy(shows).to(device)
        return torch.from_numpy(chosen).to(device), self.table.boxes[shown[..., 0]], shown, shown[..., 0]


def _table(
    subjects: Sequence[Subject], tokenizer: SimpleTokenizer, context: int, device: str
) -> SubjectTable:
    words: dict[str, int] = {"": -1}
    for subject in subjects:
        for word in subject.look:
            words.setdefault(word, len(words))
    traits = [[subject.label, *(words[word] for word in subject.look)] for subject in subjects]
    named = [
        [
            [subject.label, *(words[word] if word and word in text.split() else -1 for word in subject.look)]
            for text in subject.texts
        ]
        for subject in subjects
    ]
    texts = [text for subject in subjects for text in subject.texts]
    tokens = tokenizer(texts, context_length=context).to(torch.int32)
    return SubjectTable(
        torch.tensor([subject.box for subject in subjects], device=device),
        torch.tensor(traits, device=device),
        tokens.view(len(subjects), -1, context).to(device),
        torch.tensor(named, device=device),
    )


def jitter(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (G, K, 4) moved and resized at random, kept inside pictures of (height, width) `sizes` (G, 2)."""
    extent = boxes[..., 2:] - boxes[..., :2]
    center = (boxes[..., :2] + boxes[..., 2:]) / 2 + (torch.rand_like(extent) - 0.5) * 0.3 * extent
    half = extent / 2 * torch.exp(torch.rand_like(extent) * 0.75 - 0.3)
    limit = sizes.flip(-1)[:, None].float()
    low = (center - half).clamp(min=0).minimum(limit - 8)
    high = torch.maximum((center + half).minimum(limit), low + 8)
    return torch.cat([low, high], -1)


def cut(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Boxes (G, K, 4) of uint8 pictures (G, 3, H, W) squashed to float (G * K, 3, size, size) in [0, 1]."""
    crops: Tensor = roi_align(images.float(), list(boxes), size, sampling_ratio=-1, aligned=True)
    return crops / 255.0


def recolour(crops: Tensor) -> Tensor:
    """Random brightness, contrast and mirror image of each crop; colours keep their names."""
    shape = (len(crops), 1, 1, 1)
    gain = 1 + (torch.rand(shape, device=crops.device) - 0.5) * 0.4
    shift = (torch.rand(shape, device=crops.device) - 0.5) * 0.2
    flip = torch.rand(shape, device=crops.device) < 0.5
    return torch.where(flip, crops.flip(-1), crops).mul(gain).add(shift).clamp(0, 1)


def fits(shown: Tensor, named: Tensor) -> Tensor:
    """Which texts name something that a crop shows, and say nothing false of it.

    Args:
        shown: int64 (B, M, 4) traits of up to M subjects per crop; label -2 where there is none.
        named: int64 (B, 4) what each text names; -1 where it says nothing.

    Returns:
        bool (B, B), crops by texts.
    """
    wanted = named[None, None]
    agrees = (wanted == shown[:, :, None]) | (wanted == -1)
    return agrees.all(-1).any(1)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, positives: Tensor) -> Tensor:
    """Symmetric cross-entropy of unit vectors (B, D) against all positives (B, B), equally weighted."""
    logits = scale * images @ texts.T
    target = positives.float()
    rows = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def train_clip(out: Path, params: ClipPretrainParams, device: str) -> dict[str, Any]:
    """Train from random weights; write clip.safetensors, clip.json and bpe.txt.gz into `out`.

    Returns:
        Held-out quality and counts: see `evaluate`.
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
    loss = fit_clip(model, scenes, params)
    write_json(out / "clip.json", config)
    save_half(model, out / "clip.safetensors")
    held_out = load_canvases(params.seed + 1, params.held_out, params.workers)
    quality = evaluate(Clip(model, tokenizer, device), held_out)
    return {
        **quality,
        "loss": round(loss, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": dataclasses.asdict(params),
        "draw_seconds": round(drawn - start),
        "seconds": round(time.monotonic() - start),
    }


def train_bpe(out: Path, params: ClipPretrainParams) -> None:
    """The tokenizer's merges, from the grammar alone."""
    from model.pretrain.tokenizers import train_clip_bpe

    train_clip_bpe(corpus(params.seed, params.sentences), out / BPE, params.merges)


def fit_clip(model: Any, scenes: Scenes, params: ClipPretrainParams) -> float:
    """The training loop; returns the loss averaged over the last tenth."""
    device = scenes.images.device
    rng = np.random.default_rng(params.seed)
    optimizer = adamw(model, params.lr, params.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, params.steps, pct_start=0.12)
    mean = torch.tensor(OPENAI_DATASET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_DATASET_STD, device=device).view(1, 3, 1, 1)
    table, size = scenes.table, model.visual.image_size[0]
    tail = torch.zeros((), device=device)
    last = max(1, params.steps // 10)
    model.train()
    for step in range(params.steps):
        chosen, boxes, shown, subject = scenes.batch(rng, params.batch, params.motifs_per_scene)
        moved = jitter(boxes, scenes.sizes[chosen])
        crops = recolour(cut(scenes.images[chosen], moved, size))
        pick = torch.randint(table.tokens.shape[1], subject.shape, device=device)
        tokens = table.tokens[subject, pick].flatten(0, 1).long()
        named = table.named[subject, pick].flatten(0, 1)
        traits = table.traits[shown].masked_fill(shown[..., None] < 0, -2).flatten(0, 1)
        with autocast(device), attention(device):
            image = model.encode_image((crops - mean) / std, normalize=True)
            text = model.encode_text(tokens, normalize=True)
        scale = model.logit_scale.exp().clamp(max=100)
        loss = contrastive_loss(image.float(), text.float(), scale, fits(traits, named))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= params.steps - last:
            tail += loss.detach() / last
        if step % max(1, params.steps // 20) == 0:
            print(f"clip: step {step}/{params.steps}, loss {loss.item():.3f}", flush=True)
    model.eval()
    return float(tail)


def adamw(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that spares vectors (biases, norms, scales) the weight decay."""
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=next(model.parameters()).is_cuda)


def save_half(model: nn.Module, path: Path) -> None:
    """Write a state dict as float16 safetensors, in the order of its sorted names."""
    from safetensors.torch import save

    state = model.state_dict()
    halves = {name: state[name].detach().half().contiguous().cpu() for name in sorted(state)}
    write_bytes(path, save(halves))


@torch.inference_mode()
def evaluate(clip: Clip, canvases: Sequence[Canvas]) -> dict[str, float]:
    """Quality on unseen scenes, in percent.

    ``kind_top1``: tight motif crops whose nearest of all kinds' bare names is their own. ``region_top1``:
    utterances about an evoking motif for which that motif is the nearest of its scene's motif and scenery
    crops. ``margin``: mean cosine of an utterance with its motif minus that with the scene's other crops.
    """
    from pipeline.gallery.world import KINDS, Look

    nothing = Look("", "", "")
    names = clip.encode_text([kind.phrase(nothing, ()) for kind in KINDS.values()])
    kinds, regions, margins = [], [], []
    for canvas in canvases:
        height, width = canvas.size
        subjects = [*canvas.motifs, *canvas.scenery]
        crops = clip.encode_crops(
            canvas.image[:height, :width], np.array([subject.box for subject in subjects]), "squash"
        )
        words = clip.encode_text([motif.texts[-1] for motif in canvas.motifs])
        for number, motif in enumerate(canvas.motifs):
            kinds.append(int((crops[number] @ names.T).argmax()) == motif.label)
            if motif.label < FIRST_SCENERY and KINDS[CLASSES[motif.label]].emotions:
                scores = crops @ words[number]
                regions.append(int(scores.argmax()) == number)
                others = torch.cat([scores[:number], scores[number + 1 :]])
                margins.append(float(scores[number] - others.mean()) if len(others) else 0.0)
    return {
        "kind_top1": round(100 * float(np.mean(kinds)), 2),
        "region_top1": round(100 * float(np.mean(regions)), 2),
        "margin": round(float(np.mean(margins)), 4),
    }
