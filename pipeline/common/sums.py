"""SHA-256 beside the files of a folder, in the format that ``sha256sum -c SHA256SUMS`` checks."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import sha256_file

SUMS = "SHA256SUMS"
"""The file of the sums."""
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the sums of files in a folder, which are read."""
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names)]
    write_bytes(folder / SUMS, "".join(lines).encode())


def read_sums(folder: Path) -> dict[str, str] | None:
    """Name -> SHA-256 of the files of a folder, None where it has no sums. Raises `OSError`, `ValueError`."""
    try:
        return parse_sums((folder / SUMS).read_bytes())
    except FileNotFoundError:
        return None


def parse_sums(content: bytes) -> dict[str, str]:
    """Name -> SHA-256 of the bytes of a `SUMS` file. Raises `ValueError`."""
    *lines, rest = content.decode().split("\n")
    found = [LINE.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in found if match}
    if rest or len(sums) != len(lines):
        raise ValueError("a line is not a SHA-256 and a name, or a name stands there twice")
    return sums


def check_sum(path: Path, advice: str) -> None:
    """Compare a file with the sum beside it. A folder without sums, from elsewhere or older, passes.

    Args:
        path: the file.
        advice: what to do about a damaged one, for the message.

    Raises:
        UserError: it is not the file that was written, or the sums cannot be read.
    """
    sums = path.parent / SUMS
    try:
        recorded = read_sums(path.parent)
        found = None if recorded is None else sha256_file(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be checked by {sums} ({error}); {advice}") from None
    if recorded is None or found is None:
        return
    if path.name not in recorded:
        raise UserError(f"{path} cannot be checked: {sums} holds no SHA-256 of it; {advice}")
    if recorded[path.name] != found:
        raise UserError(
            f"{path} is not the file that was written: its SHA-256 is {found[:12]}…, in {sums} "
            f"{recorded[path.name][:12]}…. {advice[:1].upper()}{advice[1:]}"
        )
