"""What the HTML pages share: how templates are filled, and how titles are written."""

from pathlib import Path

from jinja2 import Environment

from pipeline.common import page_templates


def environment() -> Environment:
    """The templates beside this module."""
    return page_templates.environment(Path(__file__).parent)


def artist_and_title(painting: str) -> tuple[str, str]:
    """("Claude Monet", "Water lilies 1919") of ``claude-monet_water-lilies-1919``."""
    artist, mark, title = painting.partition("_")
    if not mark:
        artist, title = "", painting
    words = " ".join(title.replace("-", " ").split())
    return " ".join(artist.replace("-", " ").split()).title(), words[:1].upper() + words[1:]
