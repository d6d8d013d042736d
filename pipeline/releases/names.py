"""Names of art styles and paintings: which may become part of a path, and which two mean the same."""

import re
import unicodedata

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and the surrogates that stand for bytes that are no UTF-8."""


def unsafe_name(name: str) -> str | None:
    """Why `name` must not become one component of a path, or None when it may.

    Names come from a csv: one with a separator or a leading dot could leave its folder.
    """
    if not name:
        return "is empty"
    if "/" in name or "\\" in name:
        return "holds a path separator"
    if name.startswith("."):
        return "starts with a dot"
    if UNPRINTABLE.search(name):
        return "holds a control character"
    if len(name.encode()) > 240:
        return "is longer than a file name may be"
    return None


MOJIBAKE = re.compile("[Ãã]([\x80-\xbf])")
"""UTF-8 of a letter from À to ÿ read as Latin-1, and perhaps lower-cased: 0xC3 and a continuation byte."""


def mend_mojibake(name: str) -> str:
    """Undo UTF-8 read as Latin-1 and then lower-cased: "eugã¨ne" -> "eugène". Other names are unchanged."""
    return MOJIBAKE.sub(lambda pair: bytes((0xC3, ord(pair[1]))).decode(), name)


def plain_name(name: str) -> str:
    """What two spellings of one painting's name have in common: mended, unaccented, ``#`` as ``.``."""
    return unaccented(mend_mojibake(name).replace("#", ".").casefold())


def unaccented(text: str) -> str:
    """Letters without their accents."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(char for char in letters if not unicodedata.combining(char))


def shown(value: str, limit: int = 80) -> str:
    """A value for a message: quoted, escaped and not too long."""
    return repr(value if len(value) <= limit else value[:limit] + "…")
