"""COCO's instances and captions: ``instances.json`` with run lengths, ``captions.json`` with the utterances.

An annotation is one (artwork, emotion); masks of one artwork may overlap, as COCO allows. Soft values are
lost: foreground is what lies above the threshold. With stored masks the images have the masks' size, because
COCO knows one size only; ``picture_size`` says the picture's.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.common.emotions import EMOTIONS
from pipeline.export_masks.records import Artwork, ExportOptions, foreground

CATEGORY = {emotion: number for number, emotion in enumerate(EMOTIONS, 1)}


def coco_files(artworks: Iterable[Artwork], options: ExportOptions) -> dict[str, bytes]:
    """Name -> content of the two files."""
    from pycocotools import mask as coco_mask

    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number, artwork in enumerate(artworks, 1):
        height, width = next(iter(artwork.masks.values())).shape
        images.append(
            {
                "id": number,
                "file_name": artwork.path,
                "width": width,
                "height": height,
                "picture_size": [artwork.width, artwork.height],
                "key": artwork.key,
                "split": artwork.card["split"],
                "lineage": artwork.card.get("lineage"),
            }
        )
        for emotion, mask in artwork.masks.items():
            rle = coco_mask.encode(np.asfortranarray(foreground(mask, options), np.uint8))
            entry = artwork.card["emotions"][emotion]
            instances.append(
                {
                    "id": len(instances) + 1,
                    "image_id": number,
                    "category_id": CATEGORY[emotion],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "area": int(coco_mask.area(rle)),
                    "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                    "iscrowd": 0,
                    "utterances": entry["utterances"],
                }
            )
            for text in entry["utterances"]:
                captions.append(
                    {"id": len(captions) + 1, "image_id": number, "caption": text, "emotion": emotion}
                )
    info = {"description": "pseudo emotion masks", "threshold": options.threshold, "masks": options.size}
    categories = [{"id": number, "name": name} for name, number in CATEGORY.items()]
    shared = {"info": info, "licenses": [], "images": images}
    return {
        "instances.json": _json({**shared, "annotations": instances, "categories": categories}),
        "captions.json": _json({**shared, "annotations": captions}),
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
