"""The page on a survey of one's own: its pieces are one survey file, and each mistake is told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lenspipe.cli import app
from tests.guides.pages import ROOT
from tests.guides.scene import OWN, write_skies

ROW = re.compile(r"^\| `(\w+): (.*)` \| `(\S+: expected .*)` \|$", re.M)
MISTAKES = ROW.findall((ROOT / OWN).read_text("utf-8"))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("sky")
    write_skies(here)
    return here


@pytest.fixture
def written(sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's file, beside its sky."""
    here = tmp_path / "here"
    shutil.copytree(sky, here)
    monkeypatch.chdir(here)
    return here / "north.yaml"


@pytest.mark.parametrize(("key", "value", "told"), MISTAKES, ids=[row[2][:40] for row in MISTAKES])
def test_a_mistake_is_told_as_the_page_says(key: str, value: str, told: str, written: Path) -> None:
    line = rf"^( *){key}: .*$"
    text, places = re.subn(
        line, rf"\1{key}: {value}", written.read_text("utf-8"), count=1, flags=re.M
    )
    assert places == 1
    written.write_text(text, "utf-8")
    done = CliRunner().invoke(app, ["check", str(written)])
    assert str(done.exception) == told


def test_there_are_mistakes() -> None:
    assert len(MISTAKES) > 5
