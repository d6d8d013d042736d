"""The dataset card of the Hugging Face hub: a README.md whose metadata declare what the tars hold.

The features of masks must be declared: not every artwork evokes every emotion, and `datasets` infers members
from the first few samples alone. With the card, ``load_dataset("data/shards", "masks", split="train")``
reads the tars as they are, in place; an emotion without a mask is None.
"""

from typing import Any

from pipeline.common.arrays import parse_npy
from pipeline.common.emotions import EMOTIONS
from pipeline.reader.index import Index
from pipeline.reader.tar_paths import FILES
from pipeline.shards.description import DatasetDescription

TEXT = """
# {name}

{description}

{artworks:,} artworks, {masks:,} pseudo emotion masks from {utterances:,} utterances, in {shards} shards of
two tars each: `masks/` has a grey picture per artwork and emotion (`KEY.awe.png` ...) and how it was made
(`KEY.json`), `features/` the frozen encoders' outputs. Both hold the same artworks in the same order.

Licence: {license}
Cite: {citation}

```python
import datasets, webdataset

masks = datasets.load_dataset("PATH/OF/THIS/FOLDER", "masks", split="train", streaming=True)
features = datasets.load_dataset("PATH/OF/THIS/FOLDER", "features", split="train", streaming=True)
plain = webdataset.WebDataset(
    "PATH/OF/THIS/FOLDER/../masks/{{000000..{last:06d}}}.tar", shardshuffle=False
).decode("pil")
```

`split="train"` is the only split that `datasets` knows for tars; which artworks are for training, validation
and testing stands in the `split` of each `KEY.json` and of `index.parquet`. Checksums are in `stats.json`.
"""


def hub_card(dataset: DatasetDescription, statistics: dict[str, Any], index: Index) -> str:
    """README.md: metadata for `datasets`, then text for people; the same on every rerun.

    Args:
        dataset: its name, description, licence and citation.
        statistics: those of step `shards`.
        index: the dataset's; shapes are read from its first artwork.
    """
    from huggingface_hub import DatasetCard, DatasetCardData  # a tenth of a second, for one file

    features = {
        "masks": [{"name": f"{emotion}.png", "dtype": "image"} for emotion in EMOTIONS],
        "features": _arrays(index),
    }
    metadata = DatasetCardData(
        pretty_name=dataset.name,
        configs=[{"config_name": name, "data_files": f"../{name}/*.tar"} for name in FILES],
        dataset_info=[
            {"config_name": name, "features": [*_common_members(), *features[name]]} for name in FILES
        ],
    )
    text = TEXT.format(
        **{field: getattr(dataset, field) for field in ("name", "description", "license", "citation")},
        **{field: statistics[field] for field in ("artworks", "masks", "utterances")},
        shards=len(statistics["shards"]),
        last=max(entry["shard"] for entry in statistics["shards"]),
    )
    return str(DatasetCard(f"---\n{metadata.to_yaml()}\n---\n{text}"))


def _common_members() -> list[dict[str, Any]]:
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
            array = parse_npy(index.view(key, member))
            dtype = str(array.dtype)
            kind: dict[str, Any] = {"list": dtype}
            if array.ndim > 1:
                kind = {"dtype": {f"array{array.ndim}_d": {"shape": list(array.shape), "dtype": dtype}}}
            found.append({"name": name, **kind})
    return found
