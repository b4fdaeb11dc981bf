"""Survey files out of bytes that a fuzzer chooses: a survey comes out, or one line.

    python -m tests.fuzz.fuzz_survey CORPUS -max_total_time=300 -timeout=10 -max_len=65536

needs atheris, which is no dependency of the package: `make fuzz` installs it. The corpus begins
with the examples of the documentation. An exception is a finding, and so is an input that takes
longer than `-timeout`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
LONGEST = 20_000  # characters of a refusal, escapes of control characters included


def look(data: bytes) -> None:
    """What `load_survey` does with the bytes of a file; AssertionError where it says no line."""
    import yaml  # here, so that the fuzzer sees these modules from their import on

    from lenspipe.config import parse_survey
    from lenspipe.errors import InputError
    from lenspipe.yaml_file import parse_yaml

    try:
        content = parse_yaml(data.decode("utf-8-sig"))
        if isinstance(content, dict):
            parse_survey(content, base="/nowhere")
    except (UnicodeDecodeError, yaml.YAMLError):
        return  # `read_yaml` makes one InputError of these
    except InputError as error:
        line = str(error)
        if not line.isprintable() or len(line) > LONGEST:
            raise AssertionError(f"no line: {line!r}") from error


def seeds() -> dict[str, bytes]:
    """Name -> YAML of the documentation's examples."""
    found = {}
    for page in sorted(DOCS.glob("*.md")):
        for number, block in enumerate(page.read_text("utf-8").split("```yaml\n")[1:]):
            found[f"{page.stem}-{number}.yaml"] = block.partition("```")[0].encode()
    return found


def main() -> None:
    """Fuzz until libFuzzer's own options end it."""
    atheris = import_module("atheris")
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for name, text in seeds().items():
        (corpus / name).write_bytes(text)
    with atheris.instrument_imports(include=["lenspipe", "yaml"]):
        look(b"name: first")
    atheris.Setup(sys.argv, look)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
