"""Paths and name templates of cutout files: globs on any file system, names from columns."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from lenspipe.config import is_url, resolve
from lenspipe.cutouts.columns import Kind
from lenspipe.errors import InputError
from lenspipe.storage.remote import url_to_fs
from lenspipe.storage.walk import matches

_GLOB = re.compile(r"[*?\[]")
_OPEN = re.compile(r"[*?\[{]")  # where a pattern or a template may name several files
_DIGITS = re.compile(r"[0-9]+")
_NUMBER_FORMATS = frozenset("bcdoxXneEfFgG%")  # of Python's format specifications
_WHOLE_FORMATS = frozenset("bcdoxX")


def expand(pattern: str, base: str) -> tuple[str, ...]:
    """The files that a path or glob names, sorted. What has no wildcard stands for itself, and so
    does what is there under exactly that name; wildcards of `base` are none."""
    full = resolve(pattern, base)
    if not _GLOB.search(pattern) or _is_there(full):
        return (full,)
    return find(resolve(pattern, escape(_absolute(base))))


def find(pattern: str) -> tuple[str, ...]:
    """All files that match an absolute glob or URL glob, sorted by name.

    OutageError where the storage is away, InputError where a folder may not be listed.
    """
    if not is_url(pattern):  # one scan of each folder, where fsspec asks of every file what it is
        try:
            return tuple(matches(pattern))
        except OSError as error:
            raise InputError(pattern, "folders that can be listed", error) from error
    fs, path = url_to_fs(pattern)
    return tuple(fs.unstrip_protocol(name) for name in sorted(str(name) for name in fs.glob(path)))


def out_of_number(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two files, the first one earlier by name, that their numbers would put the other way round
    (`part10.h5`, `part2.h5`); None where both orders are one. paths: sorted by name."""
    before: dict[str, tuple[tuple[int, ...], str]] = {}
    for path in paths:
        alike, numbers = _DIGITS.sub("0", path), tuple(map(int, _DIGITS.findall(path)))
        last, name = before.get(alike, ((), ""))
        if numbers < last:
            return name, path
        before[alike] = numbers, path
    return None


def constant_part(pattern: str, base: str) -> str:
    """The absolute path of what is there under exactly that name, else of a pattern up to its first
    wildcard or field; a URL as it is."""
    full = resolve(pattern, base)
    literal = is_url(full) or _is_there(full)
    return full if literal else resolve(_before_wildcard(pattern), base)


def constant_folder(pattern: str, base: str) -> str:
    """The folder of a path, or as much of it as stands before a wildcard or a field."""
    folder, slash, _ = _before_wildcard(pattern).rpartition("/")
    return resolve(folder or slash, base)


def _before_wildcard(pattern: str) -> str:
    first = _OPEN.search(pattern)
    return pattern[: first.start()] if first else pattern


def _is_there(path: str) -> bool:
    """Whether a file or folder has exactly this name."""
    if not is_url(path):
        return os.path.lexists(path)
    fs, name = url_to_fs(path)
    return bool(fs.exists(name))


def _absolute(folder: str) -> str:
    return folder if is_url(folder) else str(Path(folder).absolute())


@dataclass(frozen=True)
class Tile:
    """One coadd tile. name: what `{tile}` stood for, with its folder where tiles have several;
    files: band -> path; folder and stem: what sibling files (masks) are named after."""

    name: str
    files: Mapping[str, str]
    folder: str
    stem: str


def tile_pattern(template: str, field: str) -> re.Pattern[str]:
    """What the end of a path must look like: `{tile}` stands for one or more characters of one
    name, `*` for any; the compressed form of a file (`.fz`, `.gz` after its name) matches too."""
    pieces = re.split(r"(\{[^}]*\}|\*)", template)
    if "{tile}" not in pieces:
        raise InputError(field, "a name with {tile} in it", repr(template))
    text, named = "", False
    for piece in pieces:
        if piece == "{tile}":
            text += "(?P=tile)" if named else "(?P<tile>[^/]+)"
            named = True
        elif piece == "*":
            text += "[^/]*"
        elif piece.startswith("{"):
            raise InputError(field, "no field but {tile}", piece)
        else:
            text += re.escape(piece)
    return re.compile(rf"{text}(?:\.fz|\.gz)?")


def tiles_of(
    paths: Sequence[str], templates: Mapping[str, str], field: str = "cutouts.bands"
) -> tuple[Tile, ...]:
    """Files sorted into tiles, in the order of names. Files that no template fits are left out.

    InputError where two files fit the same band of the same tile.
    """
    patterns = {band: tile_pattern(text, f"{field}.{band}") for band, text in templates.items()}
    found: dict[tuple[str, str], dict[str, str]] = {}
    for path in paths:
        for band, pattern in patterns.items():
            match = _match(pattern, path, templates[band].count("/"))
            if match is None:
                continue
            files = found.setdefault(match, {})
            if files.setdefault(band, path) != path:
                raise InputError(
                    f"{field}.{band}", "one file per tile", f"{files[band]} and {path}"
                )
    several = len({folder for folder, _ in found}) > 1
    return tuple(
        Tile(f"{folder}/{stem}" if several else stem, files, folder, stem)
        for (folder, stem), files in sorted(found.items())
    )


def _match(pattern: re.Pattern[str], path: str, folders: int) -> tuple[str, str] | None:
    """(folder, stem) where the last `folders + 1` parts of the path fit the pattern."""
    parts = path.rsplit("/", folders + 1)
    if len(parts) < folders + 1:
        return None
    folder = parts[0] if len(parts) == folders + 2 else ""
    match = pattern.fullmatch("/".join(parts[1:] if len(parts) == folders + 2 else parts))
    return None if match is None else (folder, match["tile"])


class UnsafeNameError(ValueError):
    """A catalogue value that would lead a file name out of its folder."""


class NameTemplate:
    """A path template such as `stamps/{name}_{band}.fits`, filled from catalogue columns.

    Fields are plain column names, with a format (`{object_id:06d}`) where wanted. base: the folder
    that a relative template starts from, whose braces are no fields.
    """

    def __init__(self, template: str, field: str, base: str | None = None) -> None:
        self.template = template if base is None else resolve(template, base)
        self.key = field
        try:
            self._parts = list(string.Formatter().parse(_below(template, base)))
        except ValueError as error:
            raise InputError(field, "a template such as {name}_{band}.fits", error) from None
        for _, name, spec, conversion in self._parts:
            if name is not None and not name.isidentifier():
                raise InputError(field, "column names in braces", repr(name))
            if conversion or "{" in (spec or ""):
                raise InputError(field, "no conversion and no nested format", repr(template))
        self.fields = frozenset(name for _, name, _, _ in self._parts if name)

    @property
    def folder(self) -> str:
        """The folder that all names share."""
        text = ""
        for literal, name, *_ in self._parts:
            text += literal
            if name is not None:
                break
        return text.rpartition("/")[0]

    def kind(self, field: str) -> Kind:
        """What a column must hold for the template to format it, wherever it stands."""
        ends = {spec[-1:] for _, name, spec, _ in self._parts if name == field and spec}
        if ends & _WHOLE_FORMATS:
            return Kind.WHOLE
        if ends & _NUMBER_FORMATS:
            return Kind.NUMBER
        return Kind.TEXT if "s" in ends else Kind.NAME

    def is_integer(self, field: str) -> bool:
        """Whether the template formats a field as a whole number (`{object_id:06d}`)."""
        return any(name == field and (spec or "").endswith("d") for _, name, spec, _ in self._parts)

    def is_number(self, field: str) -> bool:
        """Whether the template formats a field as a number, whole or not (`{phase:.2f}`)."""
        return any(
            name == field and (spec or "")[-1:] in _NUMBER_FORMATS
            for _, name, spec, _ in self._parts
            if spec
        )

    def fill(self, values: Mapping[str, Any]) -> str:
        """The name for one row. UnsafeNameError where a value holds a path; ValueError where a
        format does not fit its value."""
        text = []
        for literal, name, spec, _ in self._parts:
            text.append(literal)
            if name is not None:
                value = format(values[name], spec or "")
                text.append(value if name == "band" else safe_part(name, value))
        return "".join(text)

    def glob(self, fixed: Mapping[str, str]) -> str:
        """A glob for all names, with some fields filled."""
        return "".join(
            escape(literal)
            + ("" if name is None else escape(fixed[name]) if name in fixed else "*")
            for literal, name, _, _ in self._parts
        )

    def pattern(self, fixed: Mapping[str, str]) -> re.Pattern[str]:
        """What finds the fields of a name again; a field that is not fixed holds no `/`."""
        text, named = "", set()
        for literal, name, _, _ in self._parts:
            text += re.escape(literal)
            if name is None:
                continue
            if name in fixed:
                text += re.escape(fixed[name])
            elif name in named:
                text += f"(?P={name})"
            else:
                text += f"(?P<{name}>[^/]+)"
                named.add(name)
        return re.compile(text)


def _below(template: str, base: str | None) -> str:
    """A template below a folder; the folder's own braces stand for themselves."""
    if base is None:
        return template
    return resolve(template, _absolute(base).replace("{", "{{").replace("}", "}}"))


def safe_part(name: str, value: str) -> str:
    """`value`, if it can stand in a file name. UnsafeNameError otherwise."""
    if not value or value.startswith(".") or ".." in value or re.search(r"[/\\\x00]", value):
        raise UnsafeNameError(f"column {name}: {value[:80]!r} cannot stand in a file name")
    return value
