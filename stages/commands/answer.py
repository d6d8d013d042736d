"""What a command returns: the text that is to stand on stdout, and the exit code."""

import json
import math
from collections.abc import Callable
from typing import Any

Answer = tuple[str, int]
"""Text for stdout, and the exit code."""


def answer_of(values: Any, as_json: bool, text: Callable[[Any], str] | None = None, code: int = 0) -> Answer:
    """Values as JSON, which knows no NaN, or as `text` makes of them; by default a line for each."""
    if as_json:
        return json.dumps(_finite(values), indent=1, allow_nan=False), code
    return (text or _lines)(values), code


def _finite(values: Any) -> Any:
    """Values with null for NaN and infinity, which JSON does not know."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _lines(values: dict[str, Any]) -> str:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(_lines({f"{key}.{name}": part for name, part in value.items()}))
        elif not isinstance(value, list):
            lines.append(f"{key:>32}  {value}")
    return "\n".join(lines)
