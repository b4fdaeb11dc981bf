"""lenspipe finds strong gravitational lenses in imaging surveys."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lenspipe.results import open_run

__all__ = ["__version__", "open_run"]

try:
    __version__ = version("lenspipe")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+source"


def __getattr__(name: str) -> object:
    # `lenspipe --help` and workers do without what results need.
    if name == "open_run":
        from lenspipe.results import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
