"""Model files out of bytes that a fuzzer chooses: a model and its card come out, or one line.

    python -m tests.fuzz.fuzz_card CORPUS -max_total_time=300

needs atheris, which is no dependency of the package: `make fuzz` installs it. Even inputs are the
text of a card inside of a sound file, odd ones the file itself.
"""

from __future__ import annotations

import inspect
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from lenspipe import problems
from lenspipe.errors import InputError
from lenspipe.models import card, graph, normalise, session
from lenspipe.models.card import METADATA_KEY, ModelCard
from tests import toy_models


@cache
def donor() -> onnx.ModelProto:
    """A sound file; its digest is left out, so that the fuzzer meets what lies behind it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "toy.onnx")
        toy_models.make_member(path)
        model = onnx.load(str(path))
    kept = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def file_of(data: bytes) -> bytes:
    """The model file that the input stands for."""
    if not data or data[0] % 2:
        return data[1:]
    model = onnx.ModelProto()
    model.CopyFrom(donor())
    model.metadata_props[0].value = data[1:].decode("utf-8", errors="replace")
    return bytes(model.SerializeToString())


def one_input(data: bytes) -> ModelCard | None:
    """The card, or None where the file was refused. Anything but an `InputError` of one line is
    raised: that is what the fuzzer looks for."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "fuzzed.onnx")
        path.write_bytes(file_of(data))
        try:
            _, found = card.read_model(path)
            session.check_normalisation(found, str(path))
            session.input_shapes(found)
        except InputError as error:
            if len(str(error).splitlines()) != 1:
                raise AssertionError(f"not one line: {error!r}") from error
            return None
        return found


def seeds() -> dict[str, bytes]:
    """Inputs to begin from: a sound card, a sound file."""
    model = donor()
    return {
        "card": b"\0" + model.metadata_props[0].value.encode(),
        "file": b"\1" + model.SerializeToString(),
    }


def main() -> None:
    """Fuzz until the limits on the command line; libFuzzer's own options are taken."""
    atheris = import_module("atheris")  # by name: it is not in the environment

    corpus = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
    if corpus is not None:
        corpus.mkdir(parents=True, exist_ok=True)
        for name, content in seeds().items():
            (corpus / name).write_bytes(content)
    for module in (card, graph, normalise, problems, session):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                setattr(module, name, atheris.instrument_func(function))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
