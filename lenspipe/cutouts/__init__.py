"""Cutouts: readers by name (one file per format in `formats/`), and what they share."""

from __future__ import annotations

from typing import Any

from lenspipe import registry
from lenspipe.cutouts import formats
from lenspipe.cutouts.base import Reader, ReaderOptions


def names() -> list[str]:
    """The readers that there are."""
    return registry.names(formats)


def options_model(name: str, field: str = "cutouts.reader") -> type[ReaderOptions]:
    """The pydantic model of a reader's block in the survey file."""
    module = registry.load(formats, name, field)
    model: type[ReaderOptions] = module.Options
    return model


def open_reader(options: ReaderOptions, base: str) -> Reader:
    """Open the reader that `options` name; relative paths are relative to `base`."""
    module: Any = registry.load(formats, options.reader, "cutouts.reader")
    reader: Reader = module.open_reader(options, base)
    return reader
