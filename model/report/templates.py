"""What the HTML pages share: how templates are filled, and how titles are written."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from model.metrics.bidi import isolated


def environment() -> Environment:
    """Templates beside this module; every value is escaped and isolated, and a misspelt one is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    return isolated(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def artist_and_title(painting: str) -> tuple[str, str]:
    """("Claude Monet", "Water lilies 1919") of ``claude-monet_water-lilies-1919``."""
    artist, mark, title = painting.partition("_")
    if not mark:
        artist, title = "", painting
    words = " ".join(title.replace("-", " ").split())
    return " ".join(artist.replace("-", " ").split()).title(), words[:1].upper() + words[1:]
