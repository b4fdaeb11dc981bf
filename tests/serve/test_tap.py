from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.compute as pc
import pytest
import requests
from astropy.io.votable import parse

from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from lenspipe.serve import tap as tap_module
from lenspipe.serve.command import Service
from lenspipe.serve.query_process import QueryLimits
from tests.serve.running import serving

pyvo = pytest.importorskip("pyvo")


@pytest.fixture(scope="module")
def tap(service: Service) -> Any:
    return pyvo.dal.TAPService(f"{service.url}/tap")


def sync(service: Service, query: str, **more: str) -> requests.Response:
    given = {"LANG": "ADQL", "QUERY": query, **more}
    return requests.post(f"{service.url}/tap/sync", data=given, timeout=60)


def error_of(reply: requests.Response) -> str:
    file = parse(io.BytesIO(reply.content), verify="exception")
    [status] = [i for i in file.resources[0].infos if i.name == "QUERY_STATUS"]
    assert status.value == "ERROR"
    return str(status.content)


def test_pyvo_learns_the_tables_and_their_columns(tap: Any) -> None:
    tables = {table.name: table for table in tap.tables.values()}
    assert {"scores", "candidates", "failures", "tap_schema.columns"} <= set(tables)
    columns = {column.name: column for column in tables["scores"].columns}
    assert columns["ra"].unit == "deg"
    assert columns["ra"].ucd == "pos.eq.ra;meta.main"
    assert columns["ra"].datatype.content == "double"
    assert "logit" in columns["score"].description.lower()


def test_pyvo_learns_what_the_service_can_do(tap: Any) -> None:
    [language] = tap.get_tap_capability().languages
    assert language.name == "ADQL"
    forms = [f.form for feature in language.languagefeaturelists for f in feature]
    assert {"CONTAINS", "DISTANCE"} <= set(forms)
    assert tap.maxrec == 100_000


def test_a_query_gives_rows_with_units_and_descriptions(tap: Any, run: RunDirectory) -> None:
    found = tap.search(
        "SELECT TOP 5 object_id, ra, score FROM scores ORDER BY score DESC"
    ).to_table()
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    best = scored.take(pc.sort_indices(scored, sort_keys=[("score", "descending")])[:5])
    assert list(found["object_id"]) == best["object_id"].to_pylist()
    assert str(found["ra"].unit) == "deg"
    assert found["score"].description


def test_a_cone_and_a_join(tap: Any) -> None:
    found = tap.search(
        "SELECT c.rank, s.score_vit_b, DISTANCE(POINT('ICRS', s.ra, s.dec), POINT('ICRS', 150, 2))"
        " AS away FROM candidates AS c JOIN scores AS s ON c.object_id = s.object_id"
        " WHERE 1 = CONTAINS(POINT('ICRS', s.ra, s.dec), CIRCLE('ICRS', 150, 2, 1.5))"
        " ORDER BY away"
    ).to_table()
    away = list(found["away"])
    assert len(away) > 10
    assert away == sorted(away)
    assert max(away) <= 1.5


def test_tap_schema_can_be_asked(tap: Any) -> None:
    found = tap.search(
        "SELECT c.column_name, c.unit FROM TAP_SCHEMA.columns AS c"
        " WHERE c.table_name = 'candidates' ORDER BY c.column_index"
    ).to_table()
    assert list(found["column_name"])[:3] == ["rank", "object_id", "ra"]
    for name in ("schemas", "tables", "keys", "key_columns"):
        assert len(tap.search(f"SELECT * FROM tap_schema.{name}"))
    whole = "SELECT TAP_SCHEMA.tables.table_name FROM TAP_SCHEMA.tables"
    assert "scores" in tap.search(whole)["table_name"]
    [from_table] = tap.search(
        "SELECT from_table FROM tap_schema.keys WHERE target_table = 'scores'"
        " AND from_table = 'candidates'"
    )["from_table"]
    assert from_table == "candidates"


def test_more_rows_than_asked_for_are_said_to_be(service: Service) -> None:
    reply = sync(service, "SELECT object_id FROM scores", MAXREC="7")
    file = parse(io.BytesIO(reply.content), verify="exception")
    assert len(file.get_first_table().array) == 7
    assert [i.value for i in file.resources[0].infos] == ["OK", "OVERFLOW"]
    assert reply.content.index(b"</TABLE>") < reply.content.index(b"OVERFLOW")
    exact = sync(service, "SELECT TOP 7 object_id FROM scores", MAXREC="7")
    assert [i.value for i in parse(io.BytesIO(exact.content)).resources[0].infos] == ["OK"]


def test_other_formats(service: Service) -> None:
    query = "SELECT TOP 2 object_id, score FROM scores ORDER BY object_id"
    text = sync(service, query, FORMAT="csv")
    assert text.headers["content-type"].startswith("text/csv")
    assert text.text.splitlines()[0] == '"object_id","score"'
    told = sync(service, query, RESPONSEFORMAT="application/json").json()
    assert [row["object_id"] for row in told["rows"]] == ["0", "1"]


def test_a_query_by_get_and_of_tap_1_0(service: Service) -> None:
    reply = requests.get(
        f"{service.url}/tap/sync",
        {"request": "doQuery", "lang": "adql", "query": "SELECT COUNT(*) AS n FROM scores",
         "format": "csv"},
        timeout=60,
    )  # fmt: skip
    assert reply.text.split() == ['"n"', "1200"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"LANG": "SQL"}, "LANG"),
        ({"QUERY": ""}, "QUERY"),
        ({"QUERY": "SELECT nothing FROM scores"}, "query"),
        ({"QUERY": "SELECT * FROM \"/etc/passwd\""}, "query"),
        ({"QUERY": "SELECT * FROM sources_of_others"}, "query"),
        ({"QUERY": "SELECT current_user FROM scores"}, "QUERY"),
        ({"QUERY": "SELECT s FROM scores s", "FORMAT": "json"}, "QUERY"),
        ({"FORMAT": "docx"}, "RESPONSEFORMAT"),
        ({"MAXREC": "many"}, "MAXREC"),
        ({"REQUEST": "getCapabilities"}, "REQUEST"),
        ({"UPLOAD": "a,param:b"}, "UPLOAD"),
    ],
)  # fmt: skip
def test_errors_are_tables_with_status_400(
    service: Service, given: dict[str, str], named: str
) -> None:
    reply = sync(service, given.pop("QUERY", "SELECT 1 FROM scores"), **given)
    assert reply.status_code == 400
    assert error_of(reply).startswith(f"{named}: expected ")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", b"junk"),
        ("multipart/form-data", b"junk"),
        ("multipart/form-data; boundary=x", b"--x\r\nbad header\r\n\r\nADQL"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % k for k in range(100))),
    ],
)
def test_a_form_that_is_none_is_an_error_of_the_standard(
    service: Service, kind: str, body: bytes
) -> None:
    url, headers = f"{service.url}/tap/sync", {"Content-Type": kind}
    reply = requests.post(url, data=body, headers=headers, timeout=30)
    assert reply.status_code == 400
    assert error_of(reply).startswith("request: expected a form")


def test_queries_that_wait_hold_up_nobody_else(run: RunDirectory) -> None:
    """Of 90 slow queries one runs, a few wait, and the others are told to come again."""
    slow = "SELECT COUNT(*) FROM scores a, scores b, scores c, scores d WHERE a.ra + b.ra > d.ra"
    limits = QueryLimits(seconds=3.0, at_once=1, waiting=4, wait_s=4.0)
    with serving(run.url, limits=limits) as service, ThreadPoolExecutor(90) as pool:
        assert sync(service, "SELECT TOP 1 ra FROM scores").status_code == 200
        replies = [pool.submit(sync, service, slow) for _ in range(90)]
        took = list[float]()
        while sum(reply.done() for reply in replies) < 90:
            began = time.monotonic()
            for path in ("/healthz", "/api/candidates/1/stamp.png"):
                assert requests.get(service.url + path, timeout=30).status_code == 200
            took.append(time.monotonic() - began)
        assert len(took) > 1
        # Two answers. Waiting in the threads of all requests, they took the seconds of a query.
        assert min(took) < 1.0
        assert max(took[1:]) < 2.5
        found = [reply.result() for reply in replies]
        assert {reply.status_code for reply in found} == {400, 503}
        for reply in found:
            assert error_of(reply)
            assert ("Retry-After" in reply.headers) is (reply.status_code == 503)
        assert 1 <= sum(reply.status_code == 400 for reply in found) <= 1 + limits.waiting
        assert sync(service, "SELECT TOP 1 ra FROM scores").status_code == 200


def test_no_more_queries_are_translated_at_once_than_run(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slow(text: str, _: frozenset[str]) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1)
        with lock:
            now -= 1
        raise InputError("QUERY", "another", text)

    monkeypatch.setattr(tap_module, "to_duckdb", slow)
    limits = QueryLimits(at_once=2)
    with serving(run.url, limits=limits) as service, ThreadPoolExecutor(10) as pool:
        replies = [pool.submit(sync, service, "SELECT 1 FROM scores") for _ in range(10)]
        assert {reply.result().status_code for reply in replies} == {400}
    assert most == limits.at_once


def test_a_query_past_its_limits_ends_and_the_service_goes_on(run: RunDirectory) -> None:
    endless = "SELECT COUNT(*) FROM scores a, scores b, scores c, scores d WHERE a.ra + b.ra > d.ra"
    large = "SELECT " + " || ".join(["a.model_hash"] * 400) + " AS x FROM scores a, scores b"
    limits = QueryLimits(seconds=2.0, memory_mb=400, at_once=1, wait_s=0.2)
    with serving(run.url, limits=limits) as service:
        assert sync(service, "SELECT TOP 1 ra FROM scores").status_code == 200
        began = time.monotonic()
        reply = sync(service, endless)
        assert reply.status_code == 400
        assert "2 s" in error_of(reply)
        assert time.monotonic() - began < 10
        assert sync(service, large).status_code == 400
        assert sync(service, "SELECT TOP 1 ra FROM scores").status_code == 200
