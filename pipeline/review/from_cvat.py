"""CVAT's export "CVAT for images 1.1" (docs.cvat.ai/docs/manual/advanced/xml_format), its masks alone.

A mask is the run lengths of its own rectangle, row by row, zeros first. Its label is the emotion; an
attribute ``verdict`` may hold one, otherwise it follows from the mask.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.review.foreign import Foreign, Rejected
from pipeline.reviews.verdicts import VERDICTS

INSIDE = "annotations.xml"
LARGEST = 1 << 30
"""Bytes of the XML, and pixels of a mask."""


def read_cvat(file: Path, keys: Mapping[str, str], by: str | None) -> Iterator[Foreign | Rejected]:
    """Yield what each image says of each emotion that has a mask there.

    Args:
        file: the XML, or CVAT's zip with it.
        keys: picture's path, relative to the pictures' folder -> key of the artwork.
        by: who annotated; None: the task's assignee, or its owner.

    Raises `UserError` where the file is no such export.
    """
    root = _root(file)
    person = by or root.findtext("meta//assignee/username") or root.findtext("meta//owner/username") or "cvat"
    at = root.findtext("meta/dumped") or root.findtext("meta//updated") or ""
    names = _endings(keys)
    for image in root.iter("image"):
        name = image.get("name", "")
        key = names.get(name.replace("\\", "/")) or names.get(name.replace("\\", "/").rpartition("/")[2])
        if key is None:
            yield Rejected(name, "no-such-picture", "no artwork has a picture of that name, or several have")
            continue
        yield from _image(image, name, key, person, at)


def _root(file: Path) -> ElementTree.Element:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                size = archive.getinfo(INSIDE).file_size
                data = archive.read(INSIDE) if size <= LARGEST else b""
        else:
            data = file.read_bytes() if file.stat().st_size <= LARGEST else b""
        if not data or b"<!DOCTYPE" in data:  # which no export has, and entities would need
            raise UserError(f"{file} is no export of CVAT: it is empty, too large, or has a document type")
        root = ElementTree.fromstring(data)  # noqa: S314 - without a document type it holds no entities
    except (OSError, KeyError, zipfile.BadZipFile, ElementTree.ParseError, UnicodeError) as error:
        raise UserError(f"{file} is no export of CVAT: {error}") from None
    if root.tag != "annotations":
        raise UserError(f"{file} is no export of CVAT: its root is {root.tag[:40]!r}, not annotations")
    return root


def _endings(keys: Mapping[str, str]) -> dict[str, str]:
    """Names by which a picture may go -> key: its path, and its file's name where no other has it."""
    names: dict[str, list[str]] = {}
    for path, key in keys.items():
        for name in {path, path.rpartition("/")[2]}:
            names.setdefault(name, []).append(key)
    return {name: found[0] for name, found in names.items() if len(found) == 1}


def _image(image: ElementTree.Element, name: str, key: str, by: str, at: str) -> Iterator[Foreign | Rejected]:
    masks: dict[str, np.ndarray] = {}
    verdicts: dict[str, str] = {}
    for shape in image:
        emotion = shape.get("label", "")
        source = f"{name}, {shape.tag} of {emotion[:40]}"
        if shape.tag != "mask":
            yield Rejected(source, "not-a-mask", "only masks are read; turn other shapes into masks in CVAT")
        elif emotion not in EMOTIONS:
            yield Rejected(source, "not-an-emotion", f"the label is none of {', '.join(EMOTIONS)}")
        else:
            try:
                mask = decode_mask(shape.attrib, int(image.get("height", "")), int(image.get("width", "")))
            except (KeyError, ValueError) as error:
                yield Rejected(source, "not-readable", f"{type(error).__name__}: {error}"[:200])
                continue
            masks[emotion] = masks.get(emotion, np.zeros_like(mask)) | mask
            given = [a.text or "" for a in shape.iter("attribute") if a.get("name") == "verdict"]
            verdicts |= {emotion: given[0].strip().replace(" ", "-")} if given else {}
    for emotion, mask in masks.items():
        digest = hashlib.sha256(
            f"{key}{emotion}{verdicts.get(emotion)}".encode() + mask.tobytes()
        ).hexdigest()
        said = verdicts.get(emotion)
        known = said if said in VERDICTS else None
        yield Foreign(f"{name}, {emotion}", f"cvat-{digest[:20]}", key, emotion, by, at, known, mask)


def decode_mask(shape: Mapping[str, str], height: int, width: int) -> np.ndarray:
    """A ``<mask>``'s attributes as bool (height, width). Raises `KeyError`, `ValueError`."""
    counts = [int(part) for part in shape["rle"].split(",")]
    left, top, wide, tall = (int(shape[name]) for name in ("left", "top", "width", "height"))
    if not 0 < height * width <= LARGEST or min(left, top, *counts) < 0:
        raise ValueError("sizes or run lengths that cannot be")
    if left + wide > width or top + tall > height or sum(counts) != wide * tall:
        raise ValueError("the mask does not fit its rectangle, or this the picture")
    mask = np.zeros((height, width), bool)
    mask[top : top + tall, left : left + wide] = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(
        tall, wide
    )
    return mask
