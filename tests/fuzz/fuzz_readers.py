"""Coverage-guided fuzzing of the cutout readers: `python -m tests.fuzz.fuzz_readers -timeout=20`.

Needs the package atheris, which the default environment does not have. Any exception but an
InputError, a hang (`-timeout=20`) or a pixel that is not finite ends the run with the input that
caused it.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.fuzz.damaged_stores import WRITERS, Store, write


def consume(stores: dict[str, Store], provider: Any) -> None:
    """One damage, as the fuzzer's bytes say."""
    name = provider.PickValueInList(sorted(stores))
    which = provider.ConsumeIntInRange(0, 255)
    cut = provider.ConsumeInt(4) if provider.ConsumeProbability() < 0.2 else None
    patches = [
        (provider.ConsumeInt(4), provider.ConsumeBytes(provider.ConsumeIntInRange(1, 40)))
        for _ in range(provider.ConsumeIntInRange(1, 4))
    ]
    stores[name].damaged(which, patches, cut)


def main() -> None:
    """Fuzz until libFuzzer's arguments say stop."""
    try:
        atheris = import_module("atheris")  # by name: it is not in the environment
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    with atheris.instrument_imports(include=["lenspipe.cutouts"]):
        from lenspipe import cutouts

        for name in cutouts.names():
            cutouts.options_model(name)
    folder = Path(tempfile.mkdtemp(prefix="lenspipe-fuzz-"))
    stores = {name: write(name, folder / name) for name in WRITERS}
    atheris.Setup(sys.argv, lambda data: consume(stores, atheris.FuzzedDataProvider(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
