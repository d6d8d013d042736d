"""The page as one text: its own style, its own script, and data; nothing is loaded from anywhere."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STYLE, SCRIPT = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_OWN = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; base-uri 'none'; "
    "form-action 'none'"
)
ONLINE_POLICY = f"{_OWN}; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
OFFLINE_POLICY = f"{_OWN}; img-src data:; connect-src 'none'"


def render(data: dict[str, Any], policy: str = ONLINE_POLICY) -> str:
    """The page.

    Args:
        data: ``start`` as of `Service.start`; of a static page also ``masks``, see `static_page`.
        policy: its Content-Security-Policy. Only the two texts of this package run or style anything.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    page = (HERE / "page.html").read_text(encoding="utf-8")
    own = policy.replace("; frame-ancestors 'none'", "")  # which only a header may say
    for mark, value in (("{policy}", own), ("{style}", STYLE), ("{script}", SCRIPT), ("{data}", text)):
        before, _, after = page.partition(mark)
        page = before + value + after
    return page
