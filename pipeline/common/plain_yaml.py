"""YAML that a person writes, as plain values, in little time and memory.

PyYAML scans and composes; what it would take in silence is refused here, with the place where it stands: a
key given twice, tags, aliases that grow without end, numbers of a thousand digits, NaN. Dates stay text, and
numbers are those on which YAML 1.1 and 1.2 agree, because DVC reads the same file by the other version.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.common.errors import UserError

LARGEST = 2**18
"""Bytes of a file."""
DEPTH = 32
"""Mappings and lists inside each other."""
VALUES = 20_000
"""Values of a file, each alias counted as all that it stands for."""
SHOWN = 60
"""Characters of a value in a message."""
_CORE = "tag:yaml.org,2002:"
_MERGE = f"{_CORE}merge"
_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)")
_PLAIN_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


class BadYaml(Exception):  # noqa: N818 - named for what it says
    """What cannot be taken, and where it stands."""

    def __init__(self, where: tuple[Any, ...], what: str) -> None:
        self.where = ".".join(str(part) for part in where[:3]) + "…" * (len(where) > 3)
        super().__init__(f"{self.where or 'the file'} {what}")


class _Composer(yaml.SafeLoader):
    """Nodes of a file, no deeper than `DEPTH`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._where: list[Any] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._where.append(index.value if isinstance(index, yaml.ScalarNode) else index)
        if len(self._where) > DEPTH:
            where = tuple(part for part in self._where if isinstance(part, str | int))
            raise BadYaml(where, f"is nested more than {DEPTH} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._where.pop()
        return node


# dates stay text; 1e-4 is a number, as for DVC
_Composer.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_CORE}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Composer.add_implicit_resolver(
    f"{_CORE}float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping that a file holds: None, bool, int, finite float, str, list and dict with str keys.

    Args:
        path: a file, or a pipe, which is read once.
        what: what to call it in messages.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or holds what `BadYaml` says.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise BadYaml((), f"is larger than {LARGEST // 1024} KiB")
        values = parse_yaml(data.decode())
    except FileNotFoundError:
        raise
    except (BadYaml, OSError, ValueError) as error:
        raise UserError(f"{what} {path} cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{what} {path} cannot be read: {place}{error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{what} {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{what} {path} must be a mapping of sections, not {type(values).__name__}")
    return values


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises `BadYaml`, and what PyYAML raises of its own."""
    composer = _Composer(text)
    try:
        node = composer.get_single_node()
        return None if node is None else _Values(composer).of(node, ())
    finally:
        composer.dispose()


class _Values:
    """Nodes as values, at most `VALUES` of them."""

    def __init__(self, composer: _Composer) -> None:
        self._composer = composer
        self._left = VALUES

    def of(self, node: yaml.Node, where: tuple[Any, ...]) -> Any:
        """The value of a node that stands at `where`."""
        self._left -= 1
        if self._left < 0:
            raise BadYaml(
                where, f"is too much: the file stands for more than {VALUES} values, aliases included"
            )
        if len(where) > DEPTH:
            raise BadYaml(where, f"is nested more than {DEPTH} deep, or an alias of itself")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return [self.of(item, (*where, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where)
        raise BadYaml(where, f"has the tag {node.tag}: only plain values can be read")

    def _mapping(self, node: yaml.MappingNode, where: tuple[Any, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for mapping in self._merged(value, where):
                    merged = mapping | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise BadYaml(where, "has a list or a mapping for a key")
            name = str(key.value)  # its text: 1 and "1", on and "on" are one key
            if name in own:
                line = key.start_mark.line + 1
                raise BadYaml(
                    (*where, name), f"stands twice, the second time in line {line}: keep one of them"
                )
            own[name] = self.of(value, (*where, name))
        return merged | own

    def _merged(self, node: yaml.Node, where: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        """What ``<<`` names: a mapping, or several, of which the first has the last word."""
        values = self.of(node, (*where, "<<"))
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, dict):
                raise BadYaml((*where, "<<"), "must name mappings")
            yield value

    def _scalar(self, node: yaml.ScalarNode, where: tuple[Any, ...]) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_CORE)
        shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
        if kind not in ("null", "bool", "int", "float", "str", "value"):
            raise BadYaml(where, f"= {shown} has the tag {node.tag}: only plain values can be read")
        if kind in ("str", "value"):
            if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                raise BadYaml(where, f"= {shown} holds a character that no text or path may have")
            return text
        if kind == "int" and not _PLAIN_INT.fullmatch(text):
            raise BadYaml(
                where, f"= {shown} is no whole number, or not the same one for every reader of YAML"
            )
        try:
            value = self._composer.construct_object(node)
        except (ValueError, KeyError, AttributeError, TypeError):  # PyYAML has no class for it
            raise BadYaml(where, f"= {shown} is no {kind}") from None
        if kind == "int" and abs(value) >= 2**63:
            raise BadYaml(where, f"= {shown} is beyond 64 bits")
        if kind == "float" and not (_PLAIN_FLOAT.fullmatch(text) and math.isfinite(value)):
            raise BadYaml(where, f"= {shown} is no finite number")
        return value
