"""Where the page's numbers come from: versions, weights, params and files.

The commit that is checked out is not among them: committing the results would then change them. ``dvc.lock``
holds the hash of every input, code included.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.params import Paths

PACKAGES = ("torch", "transformers", "numpy", "pyarrow", "opencv-python-headless", "scipy")
DRAWN_FROM = (
    ("metrics", "score.json", "the score table"),
    ("metrics", "statistics.json", "intervals, paired tests, emotions, styles, histograms"),
    ("metrics", "statistics.md", "the same, to read"),
    ("metrics", "tables", "the paper's tables as csv, json, LaTeX and Markdown"),
    ("data", "score/items.parquet", "every method's IoU of every item"),
    ("data", "score/sweep.parquet", "scores by threshold"),
    ("data", "score/texts.parquet", "every draw of every explanation, with its scores"),
    ("data", "shards/stats.json", "what the shards hold"),
    ("data", "shards/labels.parquet", "every pseudo-mask with what is suspicious about it"),
)
"""(folder of `Paths`, file, what the page draws from it)."""


@dataclass(frozen=True)
class TrainedModel:
    """One variant's model, from its config."""

    variant: str
    versions: str
    training: str
    """Its params, ``key=value``."""
    weights: str
    """SHA-256 of its weights, from its checksum file."""


def versions() -> list[tuple[str, str]]:
    """(package, version) of what is installed and matters; of the page's own process."""
    found = []
    for name in ("emosem", *PACKAGES):
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def trained_models(runs: Path) -> list[TrainedModel]:
    """Every variant with a config that can be read."""
    return [model for file in sorted(runs.glob("*/config.json")) if (model := _trained(file)) is not None]


def _trained(config: Path) -> TrainedModel | None:
    try:
        about = json.loads(config.read_text(encoding="utf-8"))["about"]
        sums = config.parent / "SHA256SUMS"
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
        weights = next((line.split()[0] for line in lines if line.endswith("model.safetensors")), "")
        return TrainedModel(
            config.parent.name, _flat(about["versions"], " "), _flat(about["training"], "="), weights
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _flat(values: Mapping[str, Any], mark: str) -> str:
    return ", ".join(
        f"{name}{mark}{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(values.items())
    )


def drawn_from(paths: Paths) -> list[tuple[str, str]]:
    """(path as the params write it, what the page draws from it) of the files that are there.

    Of absolute paths only the folder's own name is shown: the rest is of somebody's disk.
    """
    folders = {"metrics": paths.metrics, "data": paths.data}
    shown = {name: Path(folder.name) if folder.is_absolute() else folder for name, folder in folders.items()}
    return [
        ((shown[folder] / name).as_posix(), what)
        for folder, name, what in DRAWN_FROM
        if (folders[folder] / name).exists()
    ]
