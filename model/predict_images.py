"""Segment and explain the emotion in pictures of one's own: the one place where frozen encoders meet EmoSEM.

Writes per picture and emotion ``STEM_EMOTION.png`` (the map, 8-bit, the picture's size, 255 for certain) and
``STEM_EMOTION_overlay.png``, and one line per answer in ``predictions.jsonl``.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.data import Features
from model.emosem import EmoSEM
from model.pictures import lit, unit_map
from model.predict import Answer, PredictParams, answer
from pipeline import storage
from pipeline.artworks import BadImage, read_image
from pipeline.backbones import BackbonesParams
from pipeline.backbones.clip import Clip, load_clip
from pipeline.backbones.sam import SamEncoder, load_sam
from pipeline.emotions import EMOTIONS
from pipeline.params import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FOREGROUND = 0.35
"""Share of a map's range above which the overlay draws its outline: APOLO's threshold."""


def predict_images(
    run: Path, path: Path, emotion: str, out: Path, params: PredictParams, backbones: BackbonesParams
) -> list[dict[str, Any]]:
    """Answer for a picture, or for each picture of a folder.

    Args:
        run: a trained model's folder, see `EmoSEM.from_pretrained`.
        path: a picture, or a folder whose pictures are taken by their suffix.
        emotion: one of the eight, or all.
        out: folder to write to; files of the same names are replaced.
        params, backbones: see there; the backbones must be those that the model was trained on.

    Returns:
        The rows of ``predictions.jsonl``: image, emotion, map, overlay, explanation, seed; for a picture that
        cannot be read: image, error, and null for emotion and explanation.

    Raises:
        UserError: unknown emotion, nothing to read, no model, or backbones of other sizes.
    """
    emotions = [*EMOTIONS] if emotion == "all" else [emotion]
    if not set(emotions) <= set(EMOTIONS):
        raise UserError(f"unknown emotion {emotion!r}; use one of {', '.join(EMOTIONS)}, or all")
    pictures = find_pictures(path)
    device = params.torch_device()
    model = EmoSEM.from_pretrained(run, device)
    encoders = (
        load_sam(backbones.sam.arch, backbones.sam.checkpoint, device),
        load_clip(backbones.clip.name, backbones.clip.checkpoint, device),
    )
    _check(model, *encoders)
    stems = _stems(pictures)
    rows: list[dict[str, Any]] = []
    nothing = {"emotion": None, "explanation": None}
    for picture in pictures:
        try:
            image = read_image(picture)
            features = encode(image, *encoders)
        except (BadImage, ValueError) as error:
            rows.append(nothing | {"image": picture.as_posix(), "error": str(error)})
            continue
        questions = [(picture.name, e) for e in emotions]
        for (_, asked), found in answer(model, questions, lambda _, f=features: f, params):  # type: ignore[misc]
            files = _write(out, f"{stems[picture]}_{asked}", image, found)
            for seed, words in zip(params.seeds, found.explanations, strict=True):
                row = {"image": picture.as_posix(), "emotion": asked, "explanation": words, "seed": seed}
                rows.append(row | files)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    storage.write_bytes(out / "predictions.jsonl", lines.encode())
    return rows


def find_pictures(path: Path) -> list[Path]:
    """The picture, or the folder's pictures by name. Raises `UserError` when there is none."""
    if path.is_dir():
        pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not pictures:
            raise UserError(f"no picture ({', '.join(SUFFIXES)}) in folder {path}")
        return pictures
    if not path.exists():
        raise UserError(f"{path} does not exist; name a picture or a folder of pictures")
    return [path]


def _stems(pictures: Sequence[Path]) -> dict[Path, str]:
    """Names for the outputs; pictures that differ in their suffix only keep it."""
    counts = Counter(picture.stem for picture in pictures)
    return {picture: picture.stem if counts[picture.stem] == 1 else picture.name for picture in pictures}


def encode(image: np.ndarray, sam: SamEncoder, clip: Clip) -> Features:
    """Features of a uint8 RGB picture (H, W, 3), in the precision that `features` stores."""
    grid = sam.encode([image])[0].half().cpu().numpy()
    patches = clip.patch_tokens([image])[0].half().cpu().numpy()
    return Features(grid, patches, *sam.input_size(*image.shape[:2]))


def _check(model: EmoSEM, sam: SamEncoder, clip: Clip) -> None:
    """The encoders must be of the sizes that the model was trained on."""
    blank = encode(np.zeros((8, 8, 3), dtype=np.uint8), sam, clip)
    found = (*blank.sam.shape, blank.clip.shape[1], sam.img_size)
    config = model.config
    wanted = (config.dim, config.grid, config.grid, config.visual_dim, config.image_size)
    if found != wanted:
        raise UserError(
            f"the model was trained on other backbones: SAM grid, CLIP width and input size are {found}, "
            f"it needs {wanted}; point the params' backbones section at those of its training"
        )


def _write(out: Path, name: str, image: np.ndarray, found: Answer) -> dict[str, str]:
    """Map and overlay of one answer; returns their paths by what they are."""
    height, width = image.shape[:2]
    probability = cv2.resize(found.probability, (width, height), interpolation=cv2.INTER_LINEAR)
    light = unit_map(probability)
    files = {
        "map": (f"{name}.png", np.rint(probability * 255).astype(np.uint8)),
        "overlay": (f"{name}_overlay.png", lit(image, light, light > FOREGROUND)[..., ::-1]),
    }
    for file, pixels in files.values():
        storage.write_bytes(out / file, cv2.imencode(".png", pixels)[1].tobytes())
    return {kind: (out / file).as_posix() for kind, (file, _) in files.items()}
