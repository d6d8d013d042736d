"""Digests of params, files and code: what tells whether an artifact is up to date."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any


def as_json(value: Any) -> Any:
    """A params object, path or plain value as JSON-ready data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    return value


def fingerprint(*parts: Any) -> str:
    """SHA-256 of params objects, strings and numbers, as canonical JSON: the same parts, the same digest."""
    text = json.dumps([as_json(part) for part in parts], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def package_version(folder: Path) -> str:
    """SHA-256 over every Python file under a folder: whether two machines run the same code."""
    files = sorted(folder.rglob("*.py"))
    return sha256_text("\0".join(f"{file.relative_to(folder)}\0{sha256_file(file)}" for file in files))
