"""Models on the Hugging Face hub: which names mean one, and how it gets here."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from pipeline.common.errors import UserError
from pipeline.common.sums import SUMS

READ = ["*.json", "*.safetensors", "*.txt", "README.md", SUMS]
"""What is fetched of a repository: what is read, and never code or pickles that lie beside it."""


def is_on_hub(folder: str | Path) -> bool:
    """Whether it can only be meant as a model on the hub: neither it nor the folder it were in is here."""
    if isinstance(folder, Path) or Path(folder).parent.exists():
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+", folder) is not None


def download(name: str, keywords: Mapping[str, Any]) -> Path:
    """Folder of a model of the hub, "owner/name". Raises `UserError` when it cannot be had.

    `keywords` are those of `huggingface_hub.snapshot_download`.
    """
    try:
        return Path(snapshot_download(name, **{"allow_patterns": READ} | dict(keywords)))
    except Exception as error:  # an absent network, model or permission shows in many ways
        raise UserError(
            f"{name} is no folder here (`python cli.py train` makes runs/single, for instance), and no model "
            f"of that name could be had from the Hugging Face hub: {error}"
        ) from None
