"""CLIPScore of explanations against picture files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.metrics.clipscore import clipscore, embed_image, embed_sentences
from pipeline.releases.wikiart import BadImage, read_image

if TYPE_CHECKING:
    from pipeline.backbones.clip import Clip


class PictureJudge:
    """CLIPScore of sentences about artworks; every picture and every sentence is embedded once."""

    def __init__(self, clip: "Clip", paths: Mapping[str, Path]) -> None:
        """`paths`: picture file of each key."""
        self._clip = clip
        self._paths = paths
        self._pictures: dict[str, np.ndarray | None] = {}
        self._sentences: dict[str, np.ndarray] = {}

    def _picture(self, key: str) -> np.ndarray | None:
        if key not in self._pictures:
            try:
                self._pictures[key] = embed_image(self._clip, read_image(self._paths[key]))
            except (BadImage, KeyError):
                self._pictures[key] = None
        return self._pictures[key]

    def score(self, keys: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
        """float64 (N,): score of each sentence about its artwork; NaN where the picture cannot be read."""
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._sentences]
        self._sentences.update(zip(new, embed_sentences(self._clip, new), strict=True))
        scores = np.full(len(keys), np.nan)
        for i, (key, sentence) in enumerate(zip(keys, sentences, strict=True)):
            picture = self._picture(key)
            if picture is not None:
                scores[i] = clipscore(picture[None], self._sentences[sentence][None])[0]
        return scores
