"""How every HTML page is filled: words from data are escaped, and cannot turn the words around them."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.common.bidi import isolated


def environment(folder: Path) -> Environment:
    """Templates in a folder; every value is escaped and isolated, and a misspelt one is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    return isolated(value) if isinstance(value, str) and not isinstance(value, Markup) else value
