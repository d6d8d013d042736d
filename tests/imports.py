"""The static import graph of our own modules, for the contract tests."""

import ast
from collections.abc import Mapping, Set
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


def module_name(file: Path) -> str:
    """Dotted name of a file of ours."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def direct_imports(file: Path) -> frozenset[str]:
    """Our modules that a file imports anywhere, also inside functions; not those for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update(name for name in names if name.split(".")[0] in PACKAGES and module_file(name))
    return frozenset(found)


def edges(file: Path) -> set[str]:
    """What importing a file runs: its imports, and the packages around them that are not around itself."""
    own = module_name(file)
    found = set()
    for name in direct_imports(file):
        parts = name.split(".")
        around = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        found |= {module for module in around if not own.startswith(f"{module}.")}
    return found - {own}


def cycles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other, each sorted (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in order:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return groups


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
