"""CLIPScore (Hessel et al. 2021): how well a picture and a sentence agree, without a reference.

100 x 2.5 x max(cos(picture, "A photo depicts " + sentence), 0), the picture through CLIP's own preprocessing
(short side to the input size, middle square). The paper's figures fit CLIP ViT-B/32; another CLIP, such as
the built-in small one, gives numbers on another scale.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.artworks import BadImage, read_image

if TYPE_CHECKING:
    from pipeline.backbones.clip import Clip

PREFIX = "A photo depicts "
WEIGHT = 2.5


def embed_image(clip: "Clip", image: np.ndarray) -> np.ndarray:
    """A picture, uint8 RGB (H, W, 3), as a unit vector: float32 (D,)."""
    height, width = image.shape[:2]
    whole = np.array([[0, 0, width, height]], dtype=np.float32)
    vector: np.ndarray = clip.encode_crops(image, whole, fit="center")[0].cpu().numpy()
    return vector


def embed_sentences(clip: "Clip", sentences: Sequence[str]) -> np.ndarray:
    """Sentences, each behind the prefix, as unit vectors: float32 (N, D)."""
    vectors: np.ndarray = clip.encode_text([PREFIX + sentence for sentence in sentences]).cpu().numpy()
    return vectors


def clipscore(images: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """Score of each pair of unit vectors, float (N, D) and (N, D): float64 (N,), 0 to 250."""
    cosine = np.sum(images.astype(np.float64) * sentences.astype(np.float64), axis=1)
    scores: np.ndarray = 100.0 * WEIGHT * np.maximum(cosine, 0.0)
    return scores


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
