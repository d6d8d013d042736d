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

    def prefer_own(self, keys: Sequence[str], groups: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
        """How often CLIP finds a sentence closer to its own artwork than to another one of its group.

        Sentences that depend on the group alone reach one half: nothing then ties them to their pictures.

        Args:
            keys, sentences: as in `score`, which has seen them.
            groups: per sentence, such as the emotion that was asked for.

        Returns:
            float64 (N,) in [0, 1]: share of the group's other artworks that lose, a tie being half; NaN
            where the own picture cannot be read, or none other can.
        """
        shares = np.full(len(keys), np.nan)
        for group in dict.fromkeys(groups):
            places = [i for i, own in enumerate(groups) if own == group]
            seen = {keys[i]: picture for i in places if (picture := self._picture(keys[i])) is not None}
            if len(seen) < 2:
                continue
            pictures, artworks = np.stack(list(seen.values())).astype(np.float64), list(seen)
            for i in (i for i in places if keys[i] in seen):
                cosines = pictures @ self._sentences[sentences[i]].astype(np.float64)
                own = cosines[artworks.index(keys[i])]
                wins = (cosines < own).sum() + 0.5 * ((cosines == own).sum() - 1)
                shares[i] = wins / (len(artworks) - 1)
        return shares
