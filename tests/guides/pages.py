"""Blocks of commands on the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fence. page: relative to the repository. line: of its first command."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its commands, one a line: comments gone, and lines that go on joined."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in bare if line]

    @property
    def waits(self) -> bool:
        """Whether its last command serves until it is ended."""
        return _serves(self.commands[-1])

    @property
    def runs_a_job(self) -> bool:
        """Whether a whole job starts Ray for it."""
        return bool(re.search(r"lenspipe (run|plan) |--address", self.text))

    @property
    def trains(self) -> bool:
        """Whether it makes or judges models."""
        return "python -m training" in self.text


def _serves(command: str) -> bool:
    return bool(re.match(r"\S*lenspipe serve |prometheus ", command))


@cache
def fences() -> tuple[Block, ...]:
    """Every fence of every page."""
    return tuple(found for page in PAGES for found in _fences(page))


def _fences(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        yield Block(str(page.relative_to(ROOT)), line, match[2], dedent(match[3]))


@cache
def blocks() -> tuple[Block, ...]:
    """Those with commands."""
    return tuple(block for block in fences() if block.language == "bash")


def pieces(page: str) -> str:
    """The YAML of a page that builds one file piece by piece."""
    found = [b.text for b in fences() if b.page == page and b.language == "yaml"]
    return "".join(found)
