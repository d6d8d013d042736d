"""Which code a result depends on, as one digest: a module's import closure without what cannot change bytes.

Every fingerprint of this project (shards, region sources, training runs, predictions, finished steps) takes
its part about code from here, so that nobody has to keep a list of modules beside each step.
"""

import ast
import functools
import hashlib
import io
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder of the packages."""
PACKAGES = ("pipeline", "model")
NEUTRAL = (
    "pipeline.backbones.tensors",  # tensors as they are stored, or none; their names are matched after
    "pipeline.backbones.weights_file",
    "pipeline.common.code",  # digests of code and params: they move every fingerprint by themselves
    "pipeline.common.command",
    "pipeline.common.digests",  # refuses files, never changes what is read
    "pipeline.common.errors",
    "pipeline.common.files",  # how a file gets its name, never what is in it
    "pipeline.common.fingerprint",
    "pipeline.common.lock",
    "pipeline.common.machine",
    "pipeline.common.params",  # how the file is read; the values are fingerprinted themselves
    "pipeline.common.plain_yaml",
    "pipeline.common.progress",
    "pipeline.common.read_ahead",  # when an item is read; the order stays
    "pipeline.common.sections",
    "pipeline.common.tally",
    "pipeline.common.threads",  # how threads wait; their number is torch's own choice, as without it
    "pipeline.common.sums",  # refuses a file, or lets it be
    "pipeline.fetch",  # brings files that are known by their hash
    "pipeline.parallel",  # where and in which order shards are made
    "pipeline.reader.remote_index",  # the same bytes from elsewhere
    "model.emosem.encoder_search",  # where the encoders lie; which they are is told by their hash
    "model.emosem.export",
    "model.emosem.hub",
    "model.emosem.model_card",
    "model.predict.encoders",
    "model.train.monitor",
)
"""Modules and packages that cannot change a result: progress, messages, writing files, scheduling."""


def code_fingerprint(*modules: str, without: Collection[str] = ()) -> str:
    """SHA-256 over the source of modules and all of ours that they import, functions' own imports included.

    Comments, docstrings, blank lines and the modules in `NEUTRAL` play no part. Only source is read: nothing
    is imported, so the digest is the same on every machine and in every process.

    Args:
        modules: dotted names, usually the caller's ``__name__``.
        without: modules or packages to leave out, with what only they import: those that have a fingerprint
            of their own, such as the other sources of regions.
    """
    return _fingerprint(tuple(sorted(set(modules))), tuple(sorted(set(without))))


@functools.cache
def _fingerprint(modules: tuple[str, ...], without: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in sorted(import_closure(modules, without)):
        digest.update(f"{name}\0{_stripped(_file(name))}\0".encode())
    return digest.hexdigest()


def import_closure(modules: Collection[str], without: Collection[str] = ()) -> set[str]:
    """Dotted names of `modules` and of all our modules that they reach, see `code_fingerprint`."""
    left_out = (*NEUTRAL, *without)
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in reached and not any(name == n or name.startswith(f"{n}.") for n in left_out):
            reached.add(name)
            waiting.extend(_imports(_file(name)))
    return reached


@functools.cache
def _imports(file: Path) -> frozenset[str]:
    """Our modules that a file imports, except for type checkers alone."""
    found: set[str] = set()
    for node in _run_nodes(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if _is_module(inner) else node.module)
    return frozenset(name for name in found if name.split(".")[0] in PACKAGES)


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below ``if TYPE_CHECKING:``."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        waiting.extend(node.orelse if typing_only else ast.iter_child_nodes(node))  # type: ignore[attr-defined]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _file(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


@functools.cache
def _stripped(file: Path) -> str:
    """What is hashed of a file."""
    return _strip(file.read_text(encoding="utf-8"))


def _strip(source: str) -> str:
    """Source without comments, docstrings and blank lines: text, because Python's dumps differ by version."""
    lines = source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column] + "\n"
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[row] = "\n"
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())
