"""SHA-256 beside the files of a folder, in the format that ``sha256sum -c SHA256SUMS`` checks."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import sha256_file

SUMS = "SHA256SUMS"
"""The file of the sums."""


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the sums of files in a folder."""
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names)]
    write_bytes(folder / SUMS, "".join(lines).encode())


def check_sum(path: Path, advice: str) -> None:
    """Compare a file with the sum beside it. A folder without sums, from elsewhere or older, passes.

    Args:
        path: the file.
        advice: what to do about a damaged one, for the message.

    Raises:
        UserError: it is not the file that was written, or the sums cannot be read.
    """
    sums = path.parent / SUMS
    if not sums.exists():
        return
    try:
        lines = sums.read_bytes().decode().split("\n")
        wanted = [line for line in lines if line.partition("  ")[2] == path.name]
        found = f"{sha256_file(path)}  {path.name}"
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be checked by {sums} ({error}); {advice}") from None
    if len(wanted) != 1 or not re.fullmatch(r"[0-9a-f]{64}  .+", wanted[0]):
        raise UserError(f"{path} cannot be checked: {sums} holds no SHA-256 of it; {advice}")
    if wanted != [found]:
        raise UserError(
            f"{path} is not the file that was written: its SHA-256 is {found[:12]}…, in {sums} "
            f"{wanted[0][:12]}…. {advice[:1].upper()}{advice[1:]}"
        )
