"""The notebook of docs/: its cells in their order, on a run of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.serve.conftest import CANDIDATES, published_run

NOTEBOOK = Path(__file__).parents[1] / "docs" / "catalogue.ipynb"


def cells() -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 4)
    found: list[dict[str, Any]] = [c for c in content["cells"] if c["cell_type"] == "code"]
    return found


def test_nothing_of_a_run_lies_in_the_notebook() -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells())


# lsdb, and nested-pandas that it builds on, still call what pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plt.switch_backend("Agg")
    run = published_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {}
    for cell in cells():
        text = "".join(cell["source"]).replace('"demo/run"', repr(run.url))
        exec(compile(text, str(NOTEBOOK), "exec"), told)  # noqa: S102 - this is what is tested
    assert len(told["best"]) == 10
    assert list(told["best"]["score"]) == sorted(told["best"]["score"], reverse=True)
    assert told["near"]["separation_arcsec"][0] < 1e-3
    assert len(told["candidates"]) == CANDIDATES
    assert list(told["matched"]["object_id"]) == list(told["matched"]["other_object_id"])
    assert len(told["matched"]) == 10
    plt.close("all")
