"""CLIPScore (Hessel et al. 2021): how well a picture and a sentence agree, without a reference.

100 x 2.5 x max(cos(picture, "A photo depicts " + sentence), 0), the picture through CLIP's own preprocessing
(short side to the input size, middle square). The paper's figures fit CLIP ViT-B/32; another CLIP, such as
the built-in small one, gives numbers on another scale.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
