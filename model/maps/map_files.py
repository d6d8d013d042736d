"""Maps decoded from the bytes of ``.png`` and ``.npy`` files."""

import cv2
import numpy as np

from pipeline.common.arrays import VALUES_LIMIT, NoArray, parse_npy


def decode_png(data: bytes) -> np.ndarray:
    """A grey picture, uint8 or uint16 (h, w). Raises `ValueError` for colours and for anything else.

    Colours that are grey count as grey, and an alpha channel that is opaque is dropped.
    """
    height, width = (int.from_bytes(data[place : place + 4], "big") for place in (20, 16))
    if data.startswith(b"\x89PNG") and height * width > VALUES_LIMIT:  # a few bytes can promise any size
        raise ValueError(f"the picture has {height} x {width} pixels; more than {VALUES_LIMIT} are not read")
    pixels = np.frombuffer(data, dtype=np.uint8)
    try:
        image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED) if len(pixels) else None
    except cv2.error as error:
        raise ValueError(f"the file is no picture that OpenCV can decode ({error.err})") from None
    if image is None:
        raise ValueError("the file is no picture that OpenCV can decode")
    if image.ndim == 2:
        return image
    opaque = 2 ** (8 * image.itemsize) - 1
    if image.shape[2] == 4 and (image[..., 3] != opaque).any():
        raise ValueError("the picture is partly transparent; save the map as grey values")
    if (image[..., :3] != image[..., :1]).any():
        raise ValueError("the picture has colours, whose order is no map's; save the map as grey values")
    return np.ascontiguousarray(image[..., 0])


def decode_npy(data: bytes) -> np.ndarray:
    """A map in the bytes of a ``.npy`` file; axes of length one are dropped from three-dimensional arrays.

    Raises `ValueError` for pickled objects, with advice, and for what is no such file.
    """
    try:
        array = parse_npy(data)
    except NoArray as error:
        advice = "; save it as a plain array of numbers" if error.reason == "pickled" else ""
        raise ValueError(f"the file is no plain .npy array ({error}){advice}") from None
    return array.squeeze() if array.ndim > 2 else array
