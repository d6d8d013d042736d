"""Whether a JPEG's bytes are sound: libjpeg paints over damage and only warns, which Pillow does not tell."""

import numpy as np
import simplejpeg

EIGHTH = {"min_height": 1, "min_width": 1, "min_factor": 8}
"""Decoded at an eighth of the size: the entropy decoder, where damage shows, still reads every byte."""


def decode_small(data: bytes) -> np.ndarray | None:
    """A sound JPEG at an eighth of its size, uint8 (h, w, 1) of brightness or (h, w, 4) of inks, not turned.

    None for one of a kind that simplejpeg cannot decode and so cannot judge.

    Raises `ValueError`, with libjpeg's words, for data that end early, go on after the last block or hold a
    code that none of the file's tables knows. Values that changed into other possible ones go unseen: a JPEG
    has no checksum.
    """
    try:
        return _decode(data, strict=True)
    except ValueError:
        try:
            _decode(data, strict=False)
        except ValueError:  # an error, not a warning
            return None
        raise


def _decode(data: bytes, strict: bool) -> np.ndarray:
    kind = simplejpeg.decode_jpeg_header(data, strict=strict)[2]
    inks = kind in ("CMYK", "YCCK")  # libjpeg has no way from ink to grey
    return simplejpeg.decode_jpeg(data, "CMYK" if inks else "GRAY", fastdct=True, strict=strict, **EIGHTH)
