"""YAML as the user meant it: a key that stands twice is refused, not overruled by the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lenspipe.errors import InputError


class _Loader(yaml.SafeLoader):
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
    """The content of a YAML text. yaml.YAMLError, or InputError for a key that stands twice."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except (ValueError, RecursionError) as error:  # 2024-99-99; lists inside lists without end
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path, field: str) -> Any:
    """The content of a YAML file; InputError at `field` where it cannot be read."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(field, "readable YAML", error) from error
