"""Weights checked against the SHA-256 list beside them."""

import functools
import json
from pathlib import Path
from typing import Any

from pipeline.backbones.tensors import weight_files
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint, sha256_file

HASHES = "sha256.json"
"""File beside weights that lists, by relative path, the SHA-256 each must have."""
READ_BESIDE = (".json", ".txt", ".gz")
"""Endings of what is read of a folder besides its weights: configs, and vocabularies of tokenizers."""
RECORDED = ".sha256"
"""Ending of the file beside weights without a published hash: of the first download, as of sha256sum."""


def verify_weights(path: Path) -> str:
    """Check a weights file, or a folder of them, against the `sha256.json` beside it.

    The list is looked for in the file's folder and in the one above. Without a list there is nothing to
    compare with, and the hash alone is returned (official weights lie wherever their user put them).

    Args:
        path: a file; an index of several, or a folder, whose listed files are all checked.

    Returns:
        Hex SHA-256 of the file; for several, of their names and hashes. Of a folder without a list count the
        weights that are read and the small files beside them, not other formats of the same and no README.

    Raises:
        UserError: missing, listed with another hash, or absent from an existing list.
    """
    if not path.exists():
        raise UserError(f"weights {path} do not exist; check the `backbones` section of the params")
    if not path.is_dir() and not path.is_file():
        raise UserError(f"weights {path} is a pipe or a device; check the `backbones` section of the params")
    folder = path if path.is_dir() else path.parent
    for root in (folder, folder.parent):
        if (root / HASHES).is_file():
            return _verify_listed(path, root)
    if path.is_dir():
        beside = (file for file in path.iterdir() if file.suffix in READ_BESIDE and file.is_file())
        files = sorted({*weight_files(path), *beside})
        return fingerprint({file.relative_to(path).as_posix(): _digest(file) for file in files})
    return weights_sha256(path)


def weights_sha256(path: Path) -> str:
    """Hex SHA-256 of a network's weights alone: of their file, or of the names and hashes of several."""
    files = weight_files(path)
    return _digest(files[0]) if len(files) == 1 else fingerprint({f.name: _digest(f) for f in files})


def _verify_listed(path: Path, root: Path) -> str:
    listed = _read_hashes(root / HASHES)
    name = path.relative_to(root).as_posix()
    names = [name] if path.is_file() else sorted(n for n in listed if name == "." or n.startswith(f"{name}/"))
    missing = [n for n in names if n not in listed]
    if not names or missing:
        raise UserError(f"{root / HASHES} does not list {name}; add its hash, or move it to another folder")
    found: dict[str, str] = {}
    for n in names:
        if not (root / n).is_file():
            raise UserError(f"{root / n} is listed in {root / HASHES} but does not exist")
        found[n] = _digest(root / n)
        if found[n] != listed[n]:
            raise UserError(
                f"{root / n} has SHA-256 {found[n]}, but {HASHES} says {listed[n]}: "
                "the file is damaged or was replaced; restore it or update the list"
            )
    return found[name] if path.is_file() else fingerprint(found)


def _read_hashes(path: Path) -> dict[str, str]:
    try:
        listed: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
        raise UserError(f"{path} must map file names to SHA-256 strings")
    return listed


def recorded_file(path: Path) -> Path:
    """Beside a file: the hash of its first download."""
    return path.with_name(path.name + RECORDED)


def read_recorded(path: Path) -> str | None:
    """The hash recorded at a file's first download, or None. Raises `UserError` for a record that is none."""
    try:
        text = recorded_file(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{recorded_file(path)} cannot be read: {error}") from None
    digest = text.partition(" ")[0].strip()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise UserError(f"{recorded_file(path)} holds no SHA-256: remove it")
    return digest


def _digest(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as its size and time stay the same.

    Raises `UserError` when another one was recorded at its first download.
    """
    stat = path.stat()
    digest = _digest_at(path, stat.st_size, stat.st_mtime_ns)
    if read_recorded(path) not in (None, digest):
        raise UserError(
            f"{path} has SHA-256 {digest}, but {recorded_file(path)} says {read_recorded(path)}: the file is "
            "damaged or was replaced; restore it, or remove the record if you replaced it"
        )
    return digest


@functools.lru_cache(maxsize=64)
def _digest_at(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_file(path)
