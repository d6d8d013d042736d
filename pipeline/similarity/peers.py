"""How well utterances find their own artwork among others: a hint that a label is wrong, at next to no cost.

The step has all regions and utterances of a shard encoded at once, which nobody has later.
"""

from collections.abc import Mapping

import numpy as np
import torch

Pair = tuple[str, str]
"""(key, emotion)."""


class Peers:
    """The regions of a shard's first artworks.

    Args:
        count: how many artworks are held.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._features: dict[str, torch.Tensor] = {}

    def add(self, key: str, features: torch.Tensor) -> None:
        """Offer an artwork's region features (N, D); beyond `count`, it is let go."""
        if len(self._features) < self._count and len(features):
            self._features[key] = features

    def own_ranks(self, asked: Mapping[Pair, tuple[torch.Tensor, torch.Tensor]]) -> dict[Pair, float | None]:
        """Per pair, the share of the other artworks held whose best region fits its utterances less well.

        Ties count half. 1: no other artwork fits as well; about 0.5: the utterances do not tell their own
        from another.

        Args:
            asked: pair -> the mean (D,) of its utterances' features, and the cosine of its best own region.

        Returns:
            Shares in [0, 1], None where no other artwork is held.
        """
        if not self._features or not asked:
            return dict.fromkeys(asked)
        texts = torch.stack([mean for mean, _ in asked.values()])
        cosines = (texts @ torch.cat(list(self._features.values())).T).float().cpu().numpy()
        starts = np.cumsum([0, *(len(part) for part in self._features.values())])[:-1]
        best = np.maximum.reduceat(cosines, starts, axis=1)
        own = np.array([float(best_own) for _, best_own in asked.values()], np.float32)[:, None]
        points = (own > best) + 0.5 * (own == best)
        place = {key: number for number, key in enumerate(self._features)}
        ranks: dict[Pair, float | None] = {}
        for row, pair in zip(points, asked, strict=True):
            others = np.delete(row, place[pair[0]]) if pair[0] in place else row
            ranks[pair] = float(others.mean()) if len(others) else None
        return ranks
