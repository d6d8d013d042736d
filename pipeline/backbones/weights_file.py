"""What a weights file really is, by its bytes and not by its name, without running anything it holds."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "safetensors", "torch", "torch-legacy", "torchscript",  # what can be loaded
    "missing", "folder", "special", "empty", "lfs-pointer", "web-page", "truncated", "archive", "unknown",
]  # fmt: skip
LOADABLE = ("safetensors", "torch", "torch-legacy", "torchscript")
LARGEST_HEADER = 100_000_000
"""Bytes; the safetensors format allows no more."""
WAY_OUT = {
    "missing": "put it there, or set {key}",
    "folder": "name the file in it: {key}",
    "special": "name a file: {key}",
    "empty": "download it again",
    "lfs-pointer": "only Git LFS's pointer was fetched: run `git lfs install && git lfs pull` in its clone",
    "web-page": "a page was saved instead of the file (a login, a licence or an error): download it again",
    "truncated": "the download broke off: download it again",
    "archive": "unpack it, and name the weights file in {key}",
    "unknown": "name a .safetensors, .pth, .pt or .bin file in {key}",
}


def sniff(path: Path) -> tuple[Kind, str]:
    """(kind, what is wrong or ""), from the first bytes, and from an archive's directory."""
    if not path.is_file():
        if path.is_dir():
            return "folder", "is a folder"
        return ("special", "is a pipe or a device") if path.exists() else ("missing", "does not exist")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found: tuple[Kind, str] = ("unknown", f"begins with {head[:16]!r}, which no weights file does")
    if not head:
        found = ("empty", "has no bytes")
    elif head.startswith(b"version https://git-lfs"):
        found = ("lfs-pointer", f"is a Git LFS pointer of {size} bytes")
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        found = ("web-page", f"is a web page of {size} bytes")
    elif head.startswith(b"PK\x03\x04"):
        found = _archive(path)
    elif head[8:9] == b"{":
        found = _safetensors(path, size)
    elif head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        found = ("torch-legacy", "")
    return found


def _archive(path: Path) -> tuple[Kind, str]:
    """A zip: torch's, TorchScript's, someone's, or half of one (the directory comes last)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "truncated", f"has {path.stat().st_size:,} bytes and no end: a part of a download"
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        return "torchscript", ""
    if any(name.endswith("/data.pkl") for name in names):
        return "torch", ""
    return "archive", f"is a zip of {', '.join(names[:3]) or 'nothing'}"


def _safetensors(path: Path, size: int) -> tuple[Kind, str]:
    """Whether the file is as long as its header says."""
    try:
        header, start = read_header(path)
    except ValueError as error:
        return ("truncated", "ends within its header") if "short" in str(error) else ("unknown", str(error))
    promised = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < promised:
        return "truncated", f"has {size:,} of {promised:,} bytes"
    return "safetensors", ""


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's tensors (name -> dtype, shape, data_offsets), and where their bytes start.

    Raises `ValueError` for anything else; "short" is in the message when the file ends too early.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length} bytes is no safetensors header")
        text = file.read(length)
    if len(text) < length:
        raise ValueError("short header")
    try:
        header: Any = json.loads(text)
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    header.pop("__metadata__", None)
    if not all(_is_entry(entry) for entry in header.values()):
        raise ValueError("the header lists no tensors")
    return header, 8 + length


def _is_entry(entry: Any) -> bool:
    """Whether it tells a tensor's shape and place, in whole numbers."""
    if not isinstance(entry, dict):
        return False
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        return False
    return all(type(number) is int and 0 <= number < 2**63 for number in [*shape, *place])
