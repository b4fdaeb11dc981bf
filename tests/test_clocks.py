"""Durations are measured by clocks that nobody sets; the time of day is told and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lenspipe"
# Module -> why the time of day stands there. `lock.py` believes it no further than "watch that
# one"; see tests/run/test_lock.py for clocks that jump.
TIME_OF_DAY = {
    "run/lock.py": "the heartbeat, and the slower of two clocks of one host",
    "run/status.py": "how old the heartbeat is, for a person",
    "telling/progress.py": "the time that an event bears",
    "run/opening.py": "`created` and `updated` of run.json",
    "serve/grades/store.py": "when a grade was given",
}
_CALLS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}


def calls(path: Path) -> Iterator[str]:
    """Dotted names that a module calls, and names that it imports from `time`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{name.name}" for name in node.names)


def test_no_duration_is_measured_by_the_time_of_day() -> None:
    found = {
        str(path.relative_to(PACKAGE)): _CALLS & set(calls(path)) for path in PACKAGE.rglob("*.py")
    }
    assert len(found) > 50
    assert {name for name, called in found.items() if called} == set(TIME_OF_DAY)


def test_the_rule_finds_a_clock_of_the_day(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import time\nfrom time import time_ns\nbegan = time.time()\n")
    assert _CALLS & set(calls(path)) == {"time.time", "time.time_ns"}
