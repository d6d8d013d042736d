"""Hugging Face `datasets`: Parquet files whose masks open as pictures, one row an (artwork, emotion).

``load_dataset("parquet", data_files="OUT/data/train-*.parquet")``, or ``load_dataset("OUT")`` for all splits.
"""

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.emotions import EMOTIONS
from pipeline.export_masks.records import Artwork, ExportOptions

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("emotion", pa.string()),
        ("split", pa.string()),
        ("art_style", pa.string()),
        ("painting", pa.string()),
        ("file_name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("utterances", pa.list_(pa.string())),
        ("artemis_ids", pa.list_(pa.int64())),
        ("area", pa.float64()),
        ("mask", PICTURE),
        ("lineage", pa.string()),
    ]
)
TYPES = {"string": "string", "int32": "int32", "int64": "int64", "double": "float64"}
PER_FILE = 20_000
"""Rows of a file."""
SPLITS = {"val": "validation"}
"""Names of splits that the hub knows by another word."""


def hub_files(artworks: Iterable[Artwork], options: ExportOptions) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the Parquet files, then of the card."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    written: dict[str, int] = {}
    counts = dict.fromkeys(EMOTIONS, 0)
    for artwork in artworks:
        for emotion, mask in artwork.masks.items():
            counts[emotion] += 1
            split = SPLITS.get(artwork.card["split"], artwork.card["split"])
            rows = waiting.setdefault(split, [])
            rows.append(_row(artwork, emotion, mask))
            if len(rows) == PER_FILE:
                yield _file(split, written, waiting.pop(split))
    for split, rows in waiting.items():
        if rows:
            yield _file(split, written, rows)
    yield "README.md", _card(sorted(written), counts, options).encode()


def _file(split: str, written: dict[str, int], rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    number = written.get(split, 0)
    written[split] = number + 1
    table = pa.Table.from_pylist(rows, schema=ROWS.with_metadata({"huggingface": json.dumps(_features())}))
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return f"data/{split}-{number:05d}.parquet", out.getvalue()


def _features() -> dict[str, Any]:
    """What `datasets` needs to know to open masks as pictures."""
    found: dict[str, Any] = {}
    for field in ROWS:
        if field.type == PICTURE:
            found[field.name] = {"_type": "Image"}
        elif pa.types.is_list(field.type):
            found[field.name] = {"feature": _value(field.type.value_type), "_type": "List"}
        else:
            found[field.name] = _value(field.type)
    return {"info": {"features": found}}


def _value(kind: pa.DataType) -> dict[str, str]:
    return {"dtype": TYPES[str(kind)], "_type": "Value"}


def _row(artwork: Artwork, emotion: str, mask: Any) -> dict[str, Any]:
    entry, card = artwork.card["emotions"][emotion], artwork.card
    return {
        "key": artwork.key,
        "emotion": emotion,
        "split": card["split"],
        "art_style": card["art_style"],
        "painting": card["painting"],
        "file_name": artwork.path,
        "width": artwork.width,
        "height": artwork.height,
        "utterances": entry["utterances"],
        "artemis_ids": entry.get("artemis_ids", []),
        "area": entry["area"],
        "mask": {"bytes": cv2.imencode(".png", mask)[1].tobytes(), "path": f"{artwork.key}.{emotion}.png"},
        "lineage": json.dumps(card.get("lineage"), sort_keys=True),
    }


def _card(splits: list[str], counts: dict[str, int], options: ExportOptions) -> str:
    configs = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in splits)
    table = "".join(f"| {emotion} | {count:,} |\n" for emotion, count in counts.items() if count)
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + configs
        + "---\n\n# Pseudo emotion masks\n\n"
        f"One row for each artwork and emotion; `mask` holds soft values from 0 to 255, {_size(options)}. "
        "Pictures are not included: `file_name` is the path under the folder of the artworks. `lineage` says "
        "how a mask was made. The masks are machine-made, and nobody has checked them.\n\n"
        "| emotion | masks |\n| --- | ---: |\n" + table
    )


def _size(options: ExportOptions) -> str:
    return "as large as the picture" if options.size == "picture" else "at the size in which they are stored"
