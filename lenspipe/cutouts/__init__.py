"""Cutout readers, one file per format; the file's name is the reader's name."""

from __future__ import annotations

from typing import Any

import lenspipe.cutouts as _package
from lenspipe import registry
from lenspipe.cutouts.base import Reader, ReaderOptions

# Modules of this package that are no readers.
HELPERS = (
    "assemble",
    "base",
    "checks",
    "checksums",
    "chunked",
    "cutting",
    "faults",
    "fitsfile",
    "geometry",
    "hdf5chunks",
    "list_files",
    "listing",
    "paths",
    "photometric",
    "planned",
    "quality",
    "ranges",
    "sparse",
    "stacks",
    "storedfile",
    "skywcs",
    "tiling",
    "unpack",
    "zarrchunks",
)


def names() -> list[str]:
    """The readers that there are."""
    return registry.names(_package, HELPERS)


def options_model(name: str, field: str = "cutouts.reader") -> type[ReaderOptions]:
    """The pydantic model of a reader's block in the survey file."""
    module = registry.load(_package, name, field, HELPERS)
    model: type[ReaderOptions] = module.Options
    return model


def open_reader(options: ReaderOptions, base: str) -> Reader:
    """Open the reader that `options` name; relative paths are relative to `base`."""
    module: Any = registry.load(_package, options.reader, "cutouts.reader", HELPERS)
    reader: Reader = module.open_reader(options, base)
    return reader
