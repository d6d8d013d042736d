"""What the small CLIP is trained on: canvases on the device, and batches of crops and texts of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from model.pretrain.clip_boxes import bad_framings, framing, jitter, overlaps
from model.pretrain.scenes import Canvas, Subject

MOST_MOTIFS = 7
"""Motifs of a scene; those of one with fewer come again."""
NONE = -2
"""Label of no subject."""


@dataclasses.dataclass(frozen=True)
class SubjectTable:
    """Subjects of all scenes as tensors; S in all."""

    boxes: Tensor
    """float32 (S, 4), canvas pixels."""
    traits: Tensor
    """int64 (S, 4): label, then colour, state and size as numbers."""
    tokens: Tensor
    """int32 (S, TEXTS, context)."""
    named: Tensor
    """int64 (S, TEXTS, 4): what each text names of the traits, -1 where it says nothing."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Crops of G pictures, K of each, and texts, T of each: the first T crops show what the texts name."""

    chosen: Tensor
    """int64 (G,): the pictures."""
    boxes: Tensor
    """float32 (G, K, 4), canvas pixels; the crop number `T - 1` is the whole picture."""
    traits: Tensor
    """int64 (G, K, 1 + MOST_MOTIFS, 4): of the subjects that a crop can show; label `NONE`: no subject."""
    shares: Tensor
    """float32 (G, K, 1 + MOST_MOTIFS) in [0, 1]: how well the crop shows each; 0: not at all."""
    subjects: Tensor
    """int64 (G, T): whom each text is about."""


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

    def batch(self, rng: np.random.Generator, scenes: int, motifs: int, framings: int) -> Batch:
        """Of random scenes `motifs` motif crops, one of scenery, a view, and `framings` badly framed ones."""
        chosen = rng.integers(len(self.rows), size=scenes)
        subjects = np.empty((scenes, motifs + 2), np.int64)
        around = np.empty((scenes, MOST_MOTIFS), np.int64)
        for row, scene in enumerate(chosen.tolist()):
            own, scenery, view = self.rows[scene]
            subjects[row, :motifs] = rng.choice(own, motifs, replace=len(own) < motifs)
            subjects[row, motifs] = rng.choice(scenery) if scenery else rng.choice(own)
            subjects[row, motifs + 1] = view
            around[row] = np.resize(own, MOST_MOTIFS)
        device = self.images.device
        picked, asked, others = (torch.from_numpy(a).to(device) for a in (chosen, subjects, around))
        sizes, true = self.sizes[picked], self.table.boxes[others]
        boxes = jitter(self.table.boxes[asked], sizes)
        boxes = torch.cat([boxes, bad_framings(true, sizes, framings)], 1)
        first = torch.cat([self.table.traits[asked], asked.new_full((scenes, framings, 4), NONE)], 1)
        motif_traits = self.table.traits[others][:, None].expand(-1, boxes.shape[1], -1, -1)
        own_share = (first[..., :1] != NONE).float()
        shares = framing(overlaps(boxes, true))
        own_share[:, :motifs] = 0  # is among the motifs already, and only worth what its framing is
        shares[:, motifs + 1] = 1  # a view shows all of them
        return Batch(
            picked,
            boxes,
            torch.cat([first[:, :, None], motif_traits], 2),
            torch.cat([own_share, shares], 2),
            asked,
        )


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
