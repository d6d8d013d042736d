"""Masks that were decoded once, kept in memory in LZ4: a tenth of the time that their PNG takes."""

import numpy as np
import pyarrow as pa

CODEC = "lz4_raw"
LIMIT = 2**30
"""Bytes kept. A mask of rectangles takes about 2 KB: ArtEmis' 220,000 take 0.45 GB."""


class DecodedMasks:
    """By number; any number of threads may ask and add. What finds no room is decoded again each time."""

    def __init__(self, limit: int = LIMIT) -> None:
        """`limit`: bytes to keep at most, of what they are packed in."""
        self._packed: dict[int, bytes] = {}
        self._room = limit

    def __len__(self) -> int:
        return len(self._packed)

    def read(self, number: int, out: np.ndarray) -> bool:
        """Write a mask into `out`, uint8 (side, side), contiguous; False when it is not kept."""
        packed = self._packed.get(number)
        if packed is None:
            return False
        found = pa.decompress(packed, out.nbytes, codec=CODEC)
        out.reshape(-1)[:] = np.frombuffer(found, np.uint8)
        return True

    def keep(self, number: int, mask: np.ndarray) -> None:
        """Pack a mask, uint8, contiguous, as far as there is room."""
        if self._room > 0 and number not in self._packed:
            packed = pa.compress(mask, codec=CODEC, asbytes=True)
            self._packed[number] = packed
            self._room -= len(packed)
