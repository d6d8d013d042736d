"""Trained models, and the masks that they make of cached features; no words, and so no CLIP."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.data.cached_features import Features, dequantise, stack_sam
from model.data.frame import Frame
from model.emosem.config import method_name, read_config
from model.emosem.network import EmoSEM
from pipeline.common.emotions import emotion_index
from pipeline.common.fingerprint import sha256_file
from pipeline.common.machine import cpu_threads

OTHER = "other-features"
"""Why an artwork is not predicted: its features are of another SAM than the student's."""


def describe_students(runs: Sequence[Path]) -> list[dict[str, str]]:
    """Method and SHA-256 of each student's weights. Raises `UserError` where there is no trained model."""
    return [
        {"method": method_name(read_config(run)[0]), "sha256": sha256_file(run / "model.safetensors")}
        for run in runs
    ]


class Students:
    """One or several models in eval mode. Raises `UserError` where there is none, or it is damaged."""

    def __init__(self, runs: Sequence[Path], device: str) -> None:
        self.models = [EmoSEM.from_pretrained(run, device) for run in runs]
        self.device = torch.device(device)
        self.threads = cpu_threads(device)

    def refusal(self, features: Features, card: Mapping[str, Any]) -> str | None:
        """Why these features are not those of every student's training, or None.

        Args:
            features: of an artwork.
            card: KEY.json of the features tar, which says whose they are.
        """
        sam = card.get("sam")
        made_by = sam.get("sha256") if isinstance(sam, dict) else None
        for model in self.models:
            config, known = model.config, model.provenance and model.provenance.sam
            if features.sam.shape != (config.dim, config.grid, config.grid):
                return OTHER
            if known and made_by and known.sha256 != made_by:
                return OTHER
        return None

    @torch.no_grad()
    def maps(self, features: Sequence[Features], queries: Sequence[tuple[int, str]]) -> list[np.ndarray]:
        """The students' mean probability for each query, in the artwork's own frame.

        Args:
            features: of artworks, all as stored by one run of the features step.
            queries: (place of the artwork in `features`, emotion).

        Returns:
            float32 (h, w) in [0, 1] each: SAM's low-resolution frame without its padding.
        """
        codes, scale = stack_sam(features)
        sam = dequantise(codes.to(self.device), None if scale is None else scale.to(self.device))
        rows = torch.tensor([row for row, _ in queries], device=self.device)
        emotions = torch.tensor([emotion_index(emotion) for _, emotion in queries], device=self.device)
        found = [model.segment(sam, rows, emotions).mask_logits.float().sigmoid() for model in self.models]
        means = torch.stack(found).mean(0).cpu().numpy()
        config = self.models[0].config
        frame = Frame(config.image_size, side=4 * config.grid)
        sizes = [frame.valid_size(f.input_height, f.input_width) for f in features]
        return [mean[: sizes[row][0], : sizes[row][1]] for mean, (row, _) in zip(means, queries, strict=True)]
