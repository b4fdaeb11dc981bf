"""No block of commands is forgotten, and none is said to be run elsewhere that is not there."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.guides.elsewhere import ELSEWHERE, Elsewhere
from tests.guides.pages import ROOT, Block, blocks, fences

MAKEFILE = ROOT / "Makefile"
LANGUAGES = {"", "bash", "nginx", "python", "yaml"}
PROGRAMS = r"\s*(?:\$ )?(?:[\w./]*/)?(?:lenspipe|make|python3?|pip|helm|kubectl|docker|ray|sbatch) "


@pytest.mark.parametrize("entry", ELSEWHERE, ids=lambda e: f"{e.page}: {e.first}")
def test_an_entry_of_the_table_names_one_block(entry: Elsewhere) -> None:
    assert len([b for b in blocks() if entry.names(b)]) == 1
    assert entry.reason
    assert entry.test is None or (ROOT / entry.test).is_file()


@pytest.mark.parametrize("block", fences(), ids=str)
def test_a_fence_with_commands_says_so(block: Block) -> None:
    assert block.language in LANGUAGES
    if not block.language:
        assert not re.match(PROGRAMS, block.text), "```bash, so that it is run"


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_what_waits_is_the_last_of_its_block(block: Block) -> None:
    """The rest would never be reached."""
    waiting = [c for c in block.commands[:-1] if re.match(r"\S*lenspipe serve |prometheus ", c)]
    assert not waiting


def test_the_demo_installs_what_the_pages_do_after_it() -> None:
    """They serve its run at once, and ask nobody to install more."""
    [extras] = re.findall(
        r"\.ready: pyproject.*\n.*\n.*'\.\[([\w,]+)\]'", MAKEFILE.read_text("utf-8")
    )
    assert {"cpu", "serve"} <= set(extras.split(","))
    served = [b for b in blocks() if "lenspipe serve demo/run" in b.text]
    assert {b.page for b in served} == {"README.md", "docs/quick-start.md"}


def test_extras_that_pages_install_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")]
    texts.append((ROOT / "README.md").read_text("utf-8"))
    named = re.findall(r"'(?:\.|lenspipe)\[([\w,]+)\]'", "".join(texts))
    extras = {extra for names in named for extra in names.split(",")}
    assert {"cpu", "openvino", "training"} <= extras <= set(project["optional-dependencies"])
