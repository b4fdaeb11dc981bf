"""Names and texts that are meant to do harm, through the whole line and through `check`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lenspipe.check import check_survey, describe
from lenspipe.config import load_survey
from lenspipe.errors import LenspipeError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.status import describe_status
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import BarProgress, JsonProgress, Progress
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

IDS = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "C:\\windows\\win.ini",
    "..",
    "a/b\\c",
    "'; DROP TABLE scores; --",
    '"quoted"',
    "it's",
    "line\nbreak\r\nand\ttab",
    "\x1b]0;owned\x07\x1b[2J",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "{{ 7 * 7 }}{% for x in y %}",
    "{object_id.__class__}",
    "%s%n${HOME}$(id)`id`",
    "NULL",
    "nan",
    "\u202egnp.exe",
    "星 ★ é é",
    "\U0001f52d",
    " padded ",
    "-rf",
    "x" * 10_000,
]
CUTS = {
    'bright"} 1\n# HELP x': "i_mag < 23.0",
    "<script>alert(2)</script>": "g_mag > 0",
    "../up\x1b[31m": "i_mag > 0",
}


class _Told(JsonProgress):
    """The events as they are written where standard error is no terminal."""


def make_hostile(folder: Path) -> Path:
    """A survey of which every row passes, with ids that are meant to do harm; the last two rows
    repeat the first two ids."""
    survey = make_survey(
        folder,
        rows=len(IDS) + 2,
        string_ids=True,
        cuts=CUTS,
        photometry=None,
        candidates={"top": 100},
    )
    path = folder / "catalogue" / "part.parquet"
    table = pq.read_table(path)
    ids = pa.array([*IDS, *IDS[:2]])
    pq.write_table(table.set_column(0, "object_id", ids), path)
    return survey


def run(survey: Path, progress: Progress) -> bytes:
    metrics = RunMetrics("toy")
    run_survey(load_survey(survey), Events(metrics, progress))
    return metrics.text()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> tuple[Path, str]:
    """The run's folder and its events."""
    survey = make_hostile(tmp_path_factory.mktemp("hostile"))
    stream = io.StringIO()
    progress = _Told(stream)
    run(survey, progress)
    progress.close()
    return survey.parent / "run", stream.getvalue()


def test_every_id_comes_out_as_it_went_in(done: tuple[Path, str]) -> None:
    run, _ = done
    directory = RunDirectory(str(run))
    assert verify(directory) == []
    scores = directory.read_folder("scores", ["score"])
    failures = directory.read_folder("failures", ["select", "score"])
    assert scores is not None
    assert failures is not None
    assert sorted(scores["object_id"].to_pylist()) == sorted(IDS)
    assert sorted(failures["object_id"].to_pylist()) == sorted(IDS[:2])
    assert failures["reason"].to_pylist() == ["duplicate_id"] * 2
    published = [
        value
        for file in (run / "catalogue").rglob("Npix*.parquet")
        for value in pq.ParquetFile(file).read()["object_id"].to_pylist()
    ]
    assert sorted(published) == sorted(IDS)
    group = zarr.open_group(run / "candidates.zarr", mode="r")
    assert sorted(map(str, np.asarray(group["object_id"]))) == sorted(IDS)


def test_no_id_became_a_file(done: tuple[Path, str]) -> None:
    run, _ = done
    for path in run.rglob("*"):
        assert re.fullmatch(r"[\w.=+-]+", path.name), path


def test_the_report_shows_names_and_runs_none_of_them(done: tuple[Path, str]) -> None:
    run, _ = done
    page = (run / "report" / "index.html").read_text("utf-8")
    for raw in ("<script>alert", "<img src=x", "\x1b", "49{%"):
        assert raw not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "&amp;lt;b&amp;gt;" in page


def test_events_stay_one_json_object_a_line(done: tuple[Path, str]) -> None:
    _, events = done
    assert "\x1b" not in events
    assert all("event" in json.loads(line) for line in events.splitlines())


def test_the_metrics_can_be_read(done: tuple[Path, str]) -> None:
    run, _ = done
    text = (run / "metrics.prom").read_text("utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    told = [sample for family in families.values() for sample in family.samples]
    assert len(told) > 10
    assert all(sample.name.startswith(("lenspipe_", "python_", "process_")) for sample in told)


def test_status_is_plain_text(done: tuple[Path, str]) -> None:
    run, _ = done
    assert not any("\x1b" in text or "\n" in text for _, text in describe_status(str(run)))


def test_a_terminal_is_not_steered() -> None:
    stream = io.StringIO()
    bars = BarProgress(stream)
    bars.retried("score", "worker_error: \x1b]0;owned\x07 \x9b2J")
    bars.message("id \x1b[2J")
    bars.close()
    assert not re.search("[\x07\x1b\x9b]", stream.getvalue())
    assert r"\u001b]0;owned\u0007" in stream.getvalue()


TEXTS = st.one_of(
    st.sampled_from(
        [
            *IDS,
            "",
            "\x7f",
            "~root/x",
            "file:///etc/passwd",
            "{tile}" * 200,
            "{",
            "}{",
            "[" * 50,
            "*" * 50,
            "**/" * 30,
            "1e999",
            "-inf",
            "nan",
            "0x10",
            "()" * 200,
            "NOT " * 500 + "TRUE",
            "i_mag" + " + i_mag" * 300 + " < 1",
            "read_text('/etc/passwd') = ''",
        ]
    ),
    st.text(max_size=40),
)
VALUES = st.recursive(
    st.one_of(
        TEXTS,
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**400, -(10**400), 2**63, 2**64, 0]),
        st.floats(),
        st.dates(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survey(tmp_path_factory.mktemp("good"), rows=20)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and position of nested mappings and lists."""
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at one place."""
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def look(path: Path) -> None:
    """What `lenspipe check` does; any refusal is one line for the user."""
    try:
        checked = check_survey(load_survey(path))
        for _, text in describe(checked):
            text.encode()
    except LenspipeError as error:
        line = str(error)
        assert line
        assert not re.search("[\x00-\x1f\x7f-\x9f]", line)
        line.encode()


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_value_at_any_place_of_a_survey_file_is_taken_or_refused_in_one_line(
    good: Path, data: st.DataObject
) -> None:
    content = yaml.safe_load(good.read_text("utf-8"))
    more = {"publish": {"mosaic": 1}, "output": "run/"}
    content = {**content, **more}
    where = data.draw(st.sampled_from(sorted(places(content), key=repr)))
    other = changed(content, where, data.draw(VALUES))
    path = good.with_name("other.yaml")
    path.write_text(yaml.safe_dump(other, allow_unicode=True), encoding="utf-8", errors="replace")
    look(path)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_bytes_in_a_survey_file_are_taken_or_refused_in_one_line(
    good: Path, data: st.DataObject
) -> None:
    text = good.read_bytes()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 30)))
    new = data.draw(st.one_of(st.binary(max_size=30), TEXTS.map(lambda t: t.encode("utf-8"))))
    path = good.with_name("bytes.yaml")
    path.write_bytes(text[:start] + new + text[stop:])
    try:
        load_survey(path)
    except LenspipeError as error:
        assert not re.search("[\x00-\x1f\x7f-\x9f]", str(error))
        assert error.exit_status == 2
