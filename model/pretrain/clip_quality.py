"""What the small CLIP is good for, on scenes that it was not trained on."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.pretrain.clip_boxes import LEAST_IOU, bad_framings, jitter, overlaps
from model.pretrain.scenes import CLASSES, FIRST_SCENERY, Canvas, Subject
from pipeline.backbones.clip import Clip
from pipeline.gallery.world import KINDS, Look

FRAMINGS = 24
"""Badly framed boxes of a scene; with the well-framed ones of all it holds about as many as a detector's."""


@torch.inference_mode()
def evaluate(clip: Clip, canvases: Sequence[Canvas]) -> dict[str, float]:
    """Quality on unseen scenes, in percent.

    ``kind_top1``: tight motif crops whose nearest of all kinds' bare names is their own. ``region_top1``:
    utterances about an evoking motif for which that motif is the nearest of its scene's motif and scenery
    crops. ``margin``: mean cosine of an utterance with its motif minus that with the scene's other crops.
    ``framing_top1``: utterances whose nearest of well-framed crops of all motifs and scenery and of
    `FRAMINGS` badly framed ones has an IoU of 0.5 or more with the motif. ``view_rank``: how often a whole
    picture is nearer to an utterance about a motif of its own than to one about another picture's.
    """
    names = clip.encode_text([kind.phrase(Look("", "", ""), ()) for kind in KINDS.values()])
    kinds: list[bool] = []
    regions: list[bool] = []
    framings: list[bool] = []
    margins: list[float] = []
    views: list[Tensor] = []
    sayings: list[Tensor] = []
    for number, canvas in enumerate(canvases):
        subjects = [*canvas.motifs, *canvas.scenery]
        boxes = torch.tensor([subject.box for subject in subjects])
        framed = _framed(canvas, boxes, number)
        crops = _encode(clip, canvas, torch.cat([boxes, framed, torch.tensor([canvas.view.box])]))
        tight, candidates, view = crops[: len(boxes)], crops[len(boxes) : -1], crops[-1]
        iou = overlaps(framed[None], boxes[None])[0]
        texts = clip.encode_text([motif.texts[-1] for motif in canvas.motifs])
        for row, motif in enumerate(canvas.motifs):
            kinds.append(int((tight[row] @ names.T).argmax()) == motif.label)
            if _evokes(motif):
                scores = tight @ texts[row]
                regions.append(int(scores.argmax()) == row)
                others = torch.cat([scores[:row], scores[row + 1 :]])
                margins.append(float(scores[row] - others.mean()) if len(others) else 0.0)
                framings.append(bool(iou[int((candidates @ texts[row]).argmax()), row] >= LEAST_IOU))
        views.append(view)
        sayings.append(texts[[row for row, motif in enumerate(canvas.motifs) if _evokes(motif)]])
    return {
        "kind_top1": _percent(kinds),
        "region_top1": _percent(regions),
        "framing_top1": _percent(framings),
        "view_rank": _view_rank(torch.stack(views), sayings),
        "margin": round(float(np.mean(margins)), 4),
    }


def _evokes(motif: Subject) -> bool:
    return motif.label < FIRST_SCENERY and bool(KINDS[CLASSES[motif.label]].emotions)


def _framed(canvas: Canvas, boxes: Tensor, number: int) -> Tensor:
    """All subjects' boxes nearly right, and `FRAMINGS` wrong ones; the same in every evaluation."""
    size = torch.tensor([canvas.size])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        wrong = bad_framings(boxes[None, : len(canvas.motifs)], size, FRAMINGS)
        return torch.cat([jitter(boxes[None], size), wrong], 1)[0]


def _encode(clip: Clip, canvas: Canvas, boxes: Tensor) -> Tensor:
    height, width = canvas.size
    return clip.encode_crops(canvas.image[:height, :width], boxes.numpy(), "squash")


def _percent(right: Sequence[bool]) -> float:
    return round(100 * float(np.mean(right)), 2)


def _view_rank(views: Tensor, sayings: Sequence[Tensor]) -> float:
    """Of pictures (V, D) and the utterances (N, D) about each; 50 is chance."""
    owners = torch.repeat_interleave(torch.tensor([len(part) for part in sayings]))
    scores = (views @ torch.cat(list(sayings)).T).cpu()
    shares = [
        (row[owners == number][:, None] > row[owners != number]).float().mean()
        for number, row in enumerate(scores)
        if 0 < int((owners == number).sum()) < len(owners)
    ]
    return round(100 * float(torch.stack(shares).mean()), 2) if shares else 100.0
