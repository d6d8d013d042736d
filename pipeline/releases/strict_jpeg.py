"""Whether a JPEG's bytes are sound: libjpeg paints over damage and only warns, which Pillow does not tell."""

import simplejpeg

EIGHTH = {"min_height": 1, "min_width": 1, "min_factor": 8}
"""Decoded at an eighth of the size: the entropy decoder, where damage shows, still reads every byte."""


def is_sound(data: bytes) -> bool:
    """True for a sound JPEG, False for one of a kind that simplejpeg cannot decode and so cannot judge.

    Raises `ValueError`, with libjpeg's words, for data that end early, go on after the last block or hold a
    code that none of the file's tables knows. Values that changed into other possible ones go unseen: a JPEG
    has no checksum.
    """
    try:
        _decode(data, strict=True)
    except ValueError:
        try:
            _decode(data, strict=False)
        except ValueError:  # an error, not a warning
            return False
        raise
    return True


def _decode(data: bytes, strict: bool) -> None:
    kind = simplejpeg.decode_jpeg_header(data, strict=strict)[2]
    inks = kind in ("CMYK", "YCCK")  # libjpeg has no way from ink to grey
    simplejpeg.decode_jpeg(data, "CMYK" if inks else "GRAY", fastdct=True, strict=strict, **EIGHTH)
