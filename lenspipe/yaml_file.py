"""YAML as the user meant it, and no more of it than a survey needs: a key that stands twice is
refused, not overruled by the last one, and a file that would cost minutes to read is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lenspipe.errors import InputError
from lenspipe.storage.outage import is_passing

# Bounds that no survey comes near. A file of this size with so many values is read in a second.
MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 40
MAX_TEXT = 20_000
# Values after every alias was replaced by what it stands for.
MAX_EXPANDED = 50_000
# What no path, name or column can hold, and no output can show.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")

# The parser in C is twenty times as fast; PyYAML may have been built without it.
if TYPE_CHECKING:
    from yaml import SafeLoader as _Fastest
else:
    _Fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):
    """The safe loader; InputError for a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key of it once."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise InputError(str(key), "this key once", f"it in lines {lines[key]} and {line}")
            lines[key] = line
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content


def parse_yaml(text: str) -> Any:
    """The content of a YAML text. yaml.YAMLError, or InputError for a key that stands twice.

    Texts beyond the bounds above are refused before anything is built of them.
    """
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _expanded(node, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (ValueError, OverflowError, RecursionError) as error:  # 2024-99-99; int of 5000 digits
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path, field: str) -> Any:
    """The content of a YAML file; InputError at `field` where it cannot be read, the system's own
    error where storage or machine refuse for now."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(field, f"YAML of at most {MAX_BYTES:,} bytes", "more")
        return parse_yaml(data.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        if isinstance(error, OSError) and is_passing(error):
            raise
        raise InputError(field, "readable YAML", error) from error


def _check_events(text: str) -> None:
    """Refuse what is too deep, too much or unusable, from the parser's flat stream of events."""
    if len(text) > MAX_BYTES:
        raise yaml.YAMLError(f"more than {MAX_BYTES:,} characters")
    depth = values = 0
    for event in _events(text):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            continue
        values += 1
        where = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"line {where}: blocks nested more than {MAX_DEPTH} deep")
        if values > MAX_VALUES:
            raise yaml.YAMLError(f"line {where}: more than {MAX_VALUES:,} values")
        if isinstance(event, yaml.ScalarEvent):
            _check_text(event.value, where)


def _events(text: str) -> Iterator[Any]:
    return iter(yaml.parse(text, Loader=_Fastest))


def _check_text(text: str, line: int) -> None:
    if len(text) > MAX_TEXT:
        raise yaml.YAMLError(f"line {line}: a text of more than {MAX_TEXT:,} characters")
    if _UNUSABLE.search(text):
        raise yaml.YAMLError(f"line {line}: a NUL or half a character inside a text")


def _expanded(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """How many values a node stands for once every alias in it was followed."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise yaml.YAMLError(f"line {line}: an anchor that holds itself")
    above.add(id(node))
    total = 1 + sum(_expanded(child, known, above) for child in _children(node))
    above.remove(id(node))
    if total > MAX_EXPANDED:
        raise yaml.YAMLError(
            f"line {line}: aliases that stand for more than {MAX_EXPANDED:,} values"
        )
    known[id(node)] = total
    return total


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
