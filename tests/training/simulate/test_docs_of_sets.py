"""The page on simulated sets names every key, kind and column that there is."""

from __future__ import annotations

import re
from pathlib import Path

from training.simulate import contaminants, defects
from training.simulate.dataset import TRUTH, TRUTH_PER_BAND, SimulateRecipe

PAGE = Path(__file__).parents[3] / "docs" / "simulation-sets.md"


def first_column(heading: str, table: int = 0) -> list[str]:
    section = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    tables = [block for block in re.split(r"\n(?!\|)", section) if "\n|" in f"\n{block}"]
    rows = [block.splitlines() for block in tables if len(block.splitlines()) > 2][table]
    return [row.split("`")[1] for row in rows if row.startswith("| `")]


def test_every_key_of_the_recipe_is_in_the_table() -> None:
    assert sorted(first_column("The block `simulate`")) == sorted(SimulateRecipe.model_fields)


def test_every_kind_is_in_the_tables() -> None:
    assert sorted(first_column("What is no lens")) == contaminants.names()
    assert sorted(first_column("What is no lens", 1)) == defects.names()


def test_every_truth_column_is_in_the_table() -> None:
    assert first_column("What a set holds") == [*TRUTH, *TRUTH_PER_BAND]
