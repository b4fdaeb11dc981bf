"""Plugins by file name: one addition to lenspipe is one file in a package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType

from lenspipe.errors import InputError


def names(package: ModuleType, helpers: Collection[str] = ()) -> list[str]:
    """Plugins of `package`: its modules but for `helpers` and names that begin with `_`."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_") and name not in helpers)


def load(package: ModuleType, name: str, field: str, helpers: Collection[str] = ()) -> ModuleType:
    """Import plugin `name`; an unknown name is an `InputError` that lists what there is."""
    known = names(package, helpers)
    if name not in known:
        raise InputError(field, f"one of {', '.join(known)}", repr(name))
    return importlib.import_module(f"{package.__name__}.{name}")
