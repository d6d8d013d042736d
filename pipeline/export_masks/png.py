"""Plain pictures: ``EMOTION/KEY.png``, soft masks of 0 to 255, and ``masks.csv`` that says what each is."""

import csv
import io
import json
from collections.abc import Iterable, Iterator

import cv2

from pipeline.export_masks.records import Artwork

COLUMNS = (
    "file",
    "key",
    "emotion",
    "split",
    "art_style",
    "painting",
    "picture",
    "area",
    "utterances",
    "lineage",
)


def png_files(artworks: Iterable[Artwork]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content), the table last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for artwork in artworks:
        card = artwork.card
        for emotion, mask in artwork.masks.items():
            name, entry = f"{emotion}/{artwork.key}.png", card["emotions"][emotion]
            yield name, cv2.imencode(".png", mask)[1].tobytes()
            about = (
                name,
                artwork.key,
                emotion,
                card["split"],
                card["art_style"],
                card["painting"],
                artwork.path,
            )
            words = json.dumps(entry["utterances"], ensure_ascii=False)
            writer.writerow((*about, entry["area"], words, json.dumps(card.get("lineage"), sort_keys=True)))
    yield "masks.csv", out.getvalue().encode()
