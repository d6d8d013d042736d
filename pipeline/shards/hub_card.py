"""The dataset card of the Hugging Face hub: a README.md that tells `datasets` what the tars hold.

Features of masks must be told: not every artwork evokes every emotion, and `datasets` guesses members from
the first few samples alone. With the card, ``load_dataset("data/shards", "masks", split="train")`` reads the
tars as they are, in place; an emotion without a mask is None.
"""

import io
from typing import Any

import numpy as np
import yaml

from pipeline.common.emotions import EMOTIONS
from pipeline.reader.index import Index
from pipeline.reader.tar_paths import FILES
from pipeline.shards.croissant_card import Described

TEXT = """
# {name}

{description}

{artworks:,} artworks, {masks:,} pseudo emotion masks from {utterances:,} utterances, in {shards} shards of
two tars each: `masks/` has a grey picture per artwork and emotion (`KEY.awe.png` ...) and their story
(`KEY.json`), `features/` the frozen encoders' grids. Both hold the same artworks in the same order.

Licence: {license}
Cite: {citation}

```python
import datasets, webdataset

masks = datasets.load_dataset("PATH/OF/THIS/FOLDER", "masks", split="train", streaming=True)
grids = datasets.load_dataset("PATH/OF/THIS/FOLDER", "features", split="train", streaming=True)
plain = webdataset.WebDataset(
    "PATH/OF/THIS/FOLDER/../masks/{{000000..{last:06d}}}.tar", shardshuffle=False
).decode("pil")
```

`split="train"` is all that `datasets` knows of tars; which artworks are for training, validation and testing
stands in the `split` of each `KEY.json` and of `index.parquet`. Checksums are in `stats.json`.
"""


def card(about: Described, statistics: dict[str, Any], index: Index) -> str:
    """README.md: YAML for `datasets`, then text for people."""
    features = {
        "masks": [{"name": f"{emotion}.png", "dtype": "image"} for emotion in EMOTIONS],
        "features": _arrays(index),
    }
    settings = {
        "pretty_name": about.name,
        "configs": [{"config_name": name, "data_files": f"../{name}/*.tar"} for name in FILES],
        "dataset_info": [
            {"config_name": name, "features": [*_about_sample(), *features[name]]} for name in FILES
        ],
    }
    text = TEXT.format(
        **{field: getattr(about, field) for field in ("name", "description", "license", "citation")},
        **{field: statistics[field] for field in ("artworks", "masks", "utterances")},
        shards=len(statistics["shards"]),
        last=max(entry["shard"] for entry in statistics["shards"]),
    )
    return f"---\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}---\n{text}"


def _about_sample() -> list[dict[str, Any]]:
    """What every sample has: its key, its tar and KEY.json."""
    kinds = (("__key__", "string"), ("__url__", "string"), ("json", "json"))
    return [{"name": name, "dtype": kind} for name, kind in kinds]


def _arrays(index: Index) -> list[dict[str, Any]]:
    """Name, shape and type of an artwork's arrays; they are those of every other's."""
    key = index.rows()[0].key
    found = []
    for member in index.members(key):
        name = member.partition("/")[2]
        if member.startswith("features/") and name.endswith(".npy"):
            array = np.load(io.BytesIO(index.read(key, member)), allow_pickle=False)
            dtype = str(array.dtype)
            kind: dict[str, Any] = {"list": dtype}
            if array.ndim > 1:
                kind = {"dtype": {f"array{array.ndim}_d": {"shape": list(array.shape), "dtype": dtype}}}
            found.append({"name": name, **kind})
    return found
