"""Static import closure of our own modules, for the contract tests."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "model", "stages")


def module_file(name: str) -> Path | None:
    """File of a dotted module of ours, or None when it is not one."""
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def direct_imports(file: Path) -> frozenset[str]:
    """Our modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update(name for name in names if name.split(".")[0] in PACKAGES and module_file(name))
    return frozenset(found)


def closure(file: Path) -> set[Path]:
    """All our files that running `file` can reach, packages' own __init__ files included."""
    seen: set[Path] = set()
    todo = [file]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        for name in direct_imports(current):
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                target = module_file(".".join(parts[:depth]))
                if target is not None:
                    todo.append(target)
    return seen
