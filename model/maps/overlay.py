"""Overlays of maps on paintings, and pictures as ``data:`` URIs.

All images are uint8 RGB (H, W, 3); masks are bool (H, W); maps are float (h, w) in any range.
"""

import base64
import math

import cv2
import numpy as np

from model.maps.label_places import place_labels

INK, PAPER = (24, 22, 20), (255, 252, 246)
DIM = 0.38
"""Brightness left where a map is lowest."""


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """The image shrunk, if need be, so that its area is that of a `side` x `side` square; aspect kept."""
    height, width = image.shape[:2]
    scale = min(1.0, side / math.sqrt(height * width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """The image with a long side of at most `side` pixels; aspect kept."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def unit_map(values: np.ndarray) -> np.ndarray:
    """A map scaled to [0, 1] by its extremes, float32; a constant map to 0."""
    values = np.asarray(values, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    return np.zeros_like(values) if high <= low else (values - low) / (high - low)


def lit(image: np.ndarray, light: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
    """The image in its colours where `light` is 1, dark and grey where it is 0, with an outline.

    Args:
        image: uint8 (H, W, 3).
        light: float or bool, any size, in [0, 1]; resized to the image.
        foreground: bool, any size: what is outlined; None for `light` itself, if that is a mask.
    """
    height, width = image.shape[:2]
    outline = light if foreground is None else foreground
    alpha = cv2.resize(light.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32) * DIM
    picture = np.rint(np.clip(alpha, 0, 1) * image + (1 - np.clip(alpha, 0, 1)) * grey).astype(np.uint8)
    mask = cv2.resize(outline.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thick = max(1, round(math.sqrt(height * width) / 180))
    cv2.drawContours(picture, contours, -1, INK, thick + 2, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, PAPER, thick, cv2.LINE_AA)
    return picture


def overlay(image: np.ndarray, map_: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The image lit by a map of any size and range, with the map's foreground outlined; see `lit`."""
    return lit(image, unit_map(map_), foreground)


def boxed(image: np.ndarray, boxes: np.ndarray, labels: list[str]) -> np.ndarray:
    """The image with boxes, the first on top, and their labels, none over another.

    `boxes` is (N, 4) xyxy, pixels of `image`. A label for which no place is free is left out, the last first.
    """
    picture = image.copy()
    face, size, room = cv2.FONT_HERSHEY_SIMPLEX, 0.45, 4
    named = list(zip(np.rint(boxes).astype(int).tolist(), labels, strict=True))[::-1]
    for (x1, y1, x2, y2), _ in named:
        for colour, thick in ((INK, 4), (PAPER, 2)):
            cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), colour, thick)
    words = [(tuple(box), label) for box, label in named[::-1] if label]
    sizes = [cv2.getTextSize(label, face, size, 1)[0] for _, label in words]
    padded = [(wide + 2 * room, tall + 2 * room) for wide, tall in sizes]
    places = place_labels([box for box, _ in words], padded, *picture.shape[:2])
    for place, (_, label) in zip(places, words, strict=True):
        if place is not None:
            x1, y1, x2, y2 = place
            cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), INK, cv2.FILLED)
            cv2.putText(picture, label, (x1 + room, y2 - room), face, size, PAPER, 1, cv2.LINE_AA)
    return picture


def data_uri(image: np.ndarray, quality: int = 84) -> str:
    """The image as a ``data:image/jpeg`` URI."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
