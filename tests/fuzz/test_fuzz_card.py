from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.fuzz_card import one_input, seeds

SEED = int(os.environ.get("LENSPIPE_FUZZ_SEED", random.SystemRandom().randrange(2**31)))


def test_the_harness_takes_what_is_sound() -> None:
    """Else it would find nothing, since everything would be refused at once."""
    assert all(one_input(content) is not None for content in seeds().values())
    assert one_input(b"\0{}") is None
    assert one_input(b"") is None


def test_mutations_without_a_fuzzer() -> None:
    print(f"LENSPIPE_FUZZ_SEED={SEED}")  # noqa: T201  # to run a failure again
    draw = random.Random(SEED)
    for content in seeds().values():
        for _ in range(40):
            mutated = bytearray(content)
            for _ in range(draw.randrange(1, 6)):
                place = draw.randrange(1, len(mutated))
                mutated[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
            one_input(bytes(mutated))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fuzzer_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris, the fuzzer, is not installed")
    command = [sys.executable, "-m", "tests.fuzz.fuzz_card", str(tmp_path), "-max_total_time=120"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert found.returncode == 0, found.stderr[-2000:]
