"""What is scored: a method predicts a map or a foreground per APOLO item and, for some, explanations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.metrics.segmentation import Scaling, scaled
from pipeline.releases.apolo import ApoloItem

ItemId = tuple[str, str]
"""(key, emotion) of an APOLO item."""

MapReader = Callable[[ApoloItem, int, int], np.ndarray | None]
"""(item, height, width of its label) -> array (height, width), or None where the method has no prediction.

float64 in [0, 1], of which the protocol takes what is above a threshold; or a finished foreground, bool.
Raises `ValueError` for a prediction that cannot be used. Must bear calls from several threads.
"""


@dataclass(frozen=True)
class Method:
    """One row of the score table."""

    name: str
    answer: MapReader
    finished: bool = False
    """Whether the predictions are finished foregrounds, without a threshold."""
    explanations: Mapping[ItemId, Sequence[str]] = field(default_factory=dict)
    """Drawn texts per item, in the order of their seeds; empty for a method that only segments."""


def item_id(item: ApoloItem) -> ItemId:
    """What identifies an item within APOLO."""
    return item.key, item.emotion


def scaled_maps(read: Callable[[ApoloItem], np.ndarray | None], scaling: Scaling) -> MapReader:
    """A reader of maps, (h, w) of any size and range, as a method's predictions by the protocol."""

    def answer(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        map_ = read(item)
        return None if map_ is None else scaled(map_, height, width, scaling)

    return answer
