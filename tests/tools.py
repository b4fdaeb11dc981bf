"""External programs that tests run the real thing with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE = "LENSPIPE_REQUIRE_TOOLS"
CI = Path(__file__).parents[1] / ".ci"
NPM = CI / "npm" / "bin"


def require_tool(name: str) -> str:
    """Path of a program; skips the test where it is missing, or fails it where REQUIRE is set."""
    found = shutil.which(name) or shutil.which(name, path=NPM)
    if not found:
        lacking(f"{name} is not installed (see .ci/debian-packages.txt, .ci/npm-packages.txt)")
    return found


def lacking(reason: str) -> NoReturn:
    """Skips a test for what this machine has not, or fails it where REQUIRE is set."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} and {REQUIRE}=1")
    pytest.skip(reason)
