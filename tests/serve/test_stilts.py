"""The service as STILTS, which is what many archives are checked with, sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import requests

from lenspipe.serve.command import Service
from tests.tools import require_tool

pytestmark = [pytest.mark.tool, pytest.mark.timeout(300)]
# Of the tables, capabilities and answers to queries; `/tap/async` is not there.
_STAGES = "TMV TME TMS TMC CPV CAP AVV QGE QPO MDQ"


def stilts(*arguments: str) -> str:
    command = [require_tool("stilts"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_taplint_finds_no_error(service: Service) -> None:
    said = stilts("taplint", f"tapurl={service.url}/tap", f"stages={_STAGES}", "report=EF")
    assert "Totals: Errors: 0; Failures: 0" in said, said


def test_a_cone_search_as_a_client_makes_it(service: Service) -> None:
    said = stilts(
        "cone", f"serviceurl={service.url}/scs", "lon=150", "lat=2", "radius=0.3", "verb=3",
        "out=-", "ofmt=csv",
    )  # fmt: skip
    lines = said.splitlines()
    assert lines[0].startswith("object_id,ra,dec,healpix_29")
    assert len(lines) > 40


@pytest.mark.parametrize(
    "path",
    [
        "/scs?RA=150&DEC=2&SR=0.3&VERB=3",
        "/scs?RA=150&DEC=2&SR=1&MAXREC=3",
        "/scs?RA=150&DEC=2&SR=0",
        "/scs?RA=150&DEC=200&SR=1",
        "/tap/sync?LANG=ADQL&QUERY=SELECT+*+FROM+candidates",
        "/tap/sync?LANG=ADQL&QUERY=SELECT+*+FROM+failures",
        "/tap/sync?LANG=ADQL&QUERY=SELECT+nothing+FROM+failures",
    ],
)
def test_votlint_finds_nothing(service: Service, tmp_path: Path, path: str) -> None:
    file = tmp_path / "answer.vot"
    file.write_bytes(requests.get(service.url + path, timeout=60).content)
    assert stilts("votlint", f"votable={file}").strip() == ""
