"""The baseline "entire artwork": every pixel evokes the emotion.

It is scored as a finished foreground. As a *map* it would be constant, and the protocol's min-max leaves a
constant map without any foreground.
"""

import numpy as np

from pipeline.releases.apolo import ApoloItem

NAME = "entire-artwork"


def foreground(item: ApoloItem, height: int, width: int) -> np.ndarray:
    """All of the picture: bool (height, width)."""
    return np.ones((height, width), dtype=np.bool_)
