"""Which emotions a person asks for."""

from collections.abc import Sequence

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError


def parse_emotions(emotions: Sequence[str] | str) -> list[str]:
    """Emotions in EMOTIONS' order, each once, of words and comma-separated words; "all" is all of them.

    Raises `UserError` for any other word.
    """
    emotions = [emotions] if isinstance(emotions, str) else emotions
    words = {word.strip().lower() for words in emotions for word in words.split(",")} - {""}
    if unknown := sorted(words - {*EMOTIONS, "all"}):
        raise UserError(f"unknown emotion {unknown[0]!r}; use any of {', '.join(EMOTIONS)}, or all")
    if not words:
        raise UserError(f"no emotion given; use any of {', '.join(EMOTIONS)}, or all")
    return [emotion for emotion in EMOTIONS if emotion in words or "all" in words]
