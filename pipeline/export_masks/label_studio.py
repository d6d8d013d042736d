"""Label Studio: ``tasks.json``, a task for each (artwork, emotion), and ``labels.xml``, the page to judge on.

The mask comes as a prediction, which a reviewer may accept, correct with the brush, or judge by a choice.
``import-reviews`` reads what Label Studio exports afterwards.
"""

import json
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

from pipeline.common.emotions import EMOTIONS
from pipeline.export_masks.brush_rle import encode_brush
from pipeline.export_masks.records import Artwork, ExportOptions, foreground

VERDICTS = ("good", "wrong place", "too big", "not visible")
BRUSH, CHOICE, PICTURE = "mask", "verdict", "image"
"""Names of the page's parts, by which results are found again."""


def label_studio_files(artworks: Iterable[Artwork], options: ExportOptions) -> dict[str, bytes]:
    """Name -> content of the two files."""
    tasks = [_task(artwork, emotion, options) for artwork in artworks for emotion in artwork.masks]
    return {"tasks.json": json.dumps(tasks, ensure_ascii=False).encode(), "labels.xml": page().encode()}


def page() -> str:
    """The labelling page."""
    labels = "".join(f"<Label value={quoteattr(emotion)}/>" for emotion in EMOTIONS)
    choices = "".join(f"<Choice value={quoteattr(verdict)}/>" for verdict in VERDICTS)
    return (
        "<View>\n"
        '  <Header value="$emotion"/>\n'
        '  <Text name="words" value="$utterances"/>\n'
        f'  <Image name="{PICTURE}" value="${PICTURE}" zoom="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="{PICTURE}">{labels}</BrushLabels>\n'
        f'  <Choices name="{CHOICE}" toName="{PICTURE}" choice="single" required="true">{choices}</Choices>\n'
        "</View>\n"
    )


def _task(artwork: Artwork, emotion: str, options: ExportOptions) -> dict[str, Any]:
    mask = foreground(artwork.masks[emotion], options)
    height, width = mask.shape
    entry = artwork.card["emotions"][emotion]
    result = {
        "id": f"{artwork.key}-{emotion}",
        "type": "brushlabels",
        "from_name": BRUSH,
        "to_name": PICTURE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [emotion]},
    }
    lineage = artwork.card.get("lineage") or {}
    return {
        "data": {
            PICTURE: f"{options.prefix}{artwork.path}",
            "key": artwork.key,
            "emotion": emotion,
            "split": artwork.card["split"],
            "utterances": "\n".join(entry["utterances"]),
        },
        "predictions": [{"model_version": str(lineage.get("fingerprint", "")), "result": [result]}],
    }
