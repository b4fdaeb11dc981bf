from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import requests
from matplotlib.image import imread

from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from lenspipe.serve.command import Service
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.reliability import reliability
from lenspipe.serve.grades.state import states_of
from lenspipe.serve.grades.store import open_store
from lenspipe.serve.shown import Manner
from lenspipe.serve.stamps import Stamps
from lenspipe.serve.training_images import TrainingImages
from tests.serve.conftest import CANDIDATES, SIZE, WITHOUT_PIXELS
from tests.serve.running import serving


@pytest.fixture
def grades(tmp_path: Path) -> str:
    return str(tmp_path / "grades.sqlite")


@pytest.fixture
def inspected(run: RunDirectory, grades: str) -> Iterator[Service]:
    with serving(run.url, grades=grades) as service:
        yield service


def get(service: Service, path: str = "", **given: Any) -> Any:
    reply = requests.get(f"{service.url}/api/inspection{path}", given, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply.json()


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"key": uuid.uuid4().hex, "kind": kind, **more}


def post(service: Service, *events: dict[str, Any], grader: str = "ana") -> requests.Response:
    return requests.post(
        f"{service.url}/api/inspection/events",
        params={"grader": grader},
        json={"events": list(events)},
        timeout=30,
    )


def objects(service: Service, grader: str = "ana", **given: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(service, "/objects", grader=grader, count=500, **given)[
        "objects"
    ]
    return found


def test_what_a_grader_does_is_what_holds(inspected: Service, grades: str) -> None:
    shown = objects(inspected)
    assert len(shown) == CANDIDATES
    a, b, c = (each["object"] for each in shown[:3])
    told = post(
        inspected,
        event("grade", object=a, grade="B", view="single", seconds_looked=2.5),
        event("flag", object=b, view="mosaic"),
        event("comment", object=c, comment="arc to the north"),
        event("grade", object=a, grade="A"),
        event("seen", object=c, view="mosaic"),
    ).json()
    assert len(told["kept"]) == 5
    assert told["progress"]["graded"] == told["progress"]["flagged"] == 1
    assert told["progress"]["seen"] == 3
    now = objects(inspected)
    assert (now[0]["grade"], now[1]["flagged"], now[2]["comment"]) == (
        "A",
        True,
        "arc to the north",
    )
    assert [each["object"] for each in objects(inspected, flagged=True)] == [b]
    undone = post(inspected, event("undo")).json()
    assert undone["undone"]["grade"] == "B"
    assert objects(inspected)[0]["grade"] == "B"
    # Another grader begins with nothing.
    assert all(each["grade"] is None for each in objects(inspected, "ben"))
    with open_store(grades, writable=False) as store:
        assert store.count() == 6
        assert {e.grader for e in store.events()} == {"ana"}


def test_a_resend_counts_once(inspected: Service, grades: str) -> None:
    mark = event("flag", object=objects(inspected)[0]["object"])
    for _ in range(3):
        assert post(inspected, mark).status_code == 200
    with open_store(grades, writable=False) as store:
        assert store.count() == 1


def test_an_undo_says_what_it_took_back(inspected: Service, grades: str) -> None:
    a, b = (each["object"] for each in objects(inspected)[:2])
    post(inspected, event("grade", object=a, grade="B"), event("flag", object=b))
    undo = event("undo")
    for _ in range(2):  # the first answer may be lost
        told = post(inspected, undo).json()
        assert (told["undone"]["object"], told["undone"]["flagged"]) == (b, False)
    assert post(inspected, event("undo")).json()["undone"]["object"] == a
    assert post(inspected, event("undo")).json()["undone"] is None
    # A grade that was imported may be of an object that is not shown.
    with open_store(grades) as store:
        store.append(NewEvent("k", "ana", "grade", 999_999, grade="A"))
    told = post(inspected, event("undo"))
    assert (told.status_code, told.json()["undone"]) == (200, None)


def test_flagged_ones_are_found_by_their_place(inspected: Service) -> None:
    names = [each["object"] for each in objects(inspected)]
    marks = [event("flag", object=names[k]) for k in (3, 5, 9)]
    told = post(inspected, *marks, event("grade", object=names[3], grade="X")).json()["progress"]
    assert (told["flagged_left"], told["next_flagged"]) == (2, 5)

    def found(place: int, start: int = 0) -> tuple[int, list[int]]:
        given = {"place": place, "start": start, "flagged": True, "count": 1}
        told = get(inspected, "/objects", grader="ana", **given)
        return told["start"], [each["place"] for each in told["objects"]]

    assert [found(k) for k in (0, 3, 4, 9, 10)] == [
        (0, [3]), (0, [3]), (1, [5]), (2, [9]), (3, []),
    ]  # fmt: skip
    assert [found(k, -1) for k in (3, 5, 10)] == [(0, [3]), (0, [3]), (2, [9])]
    assert [found(k, -2) for k in (5, 10)] == [(0, [3]), (1, [5])]


def test_a_name_that_is_none_is_refused_before_anything_is_graded(inspected: Service) -> None:
    for name in ("Ana\u00a0Ruiz", " ana", "ana\u200b", "x" * 101):
        reply = requests.get(f"{inspected.url}/api/inspection", {"grader": name}, timeout=30)
        assert reply.status_code in (400, 422)
        assert "\n" not in reply.json()["error"]


def test_a_page_of_another_run_is_told_so(run: RunDirectory, grades: str) -> None:
    with serving(run.url, grades=grades) as service:
        told = get(service, grader="ana")["run"]
        assert get(service, "/objects", grader="ana", run=told)["total"] == CANDIDATES
    with serving(run.url, grades=grades) as service:
        assert get(service)["run"] == told
    # Objects have other names with another seed, so its pages are others.
    with serving(run.url, grades=grades, manner=Manner(blind=True, seed=5)) as service:
        given = {"grader": "ana", "run": told}
        url = f"{service.url}/api/inspection/events"
        reply = requests.post(url, params=given, json={"events": [event("undo")]}, timeout=30)
        assert reply.status_code == 409
        assert "another run" in reply.json()["error"]
    with open_store(grades, writable=False) as store:
        assert store.count() == 0


def test_work_goes_on_where_it_stopped(run: RunDirectory, grades: str) -> None:
    with serving(run.url, grades=grades) as service:
        names = [each["object"] for each in objects(service)]
        post(service, event("grade", object=names[0], grade="X"), event("seen", object=names[9]))
    with serving(run.url, grades=grades) as service:
        # A page that stayed open has the same names.
        assert [each["object"] for each in objects(service)] == names
        told = get(service, grader="ana")
        assert told["progress"]["next_ungraded"] == 1
        assert told["progress"]["next_unseen"] == 10
        assert [g["name"] for g in told["grades"]] == ["A", "B", "C", "X"]


def test_blind_graders_are_told_nothing(run: RunDirectory, grades: str) -> None:
    with serving(run.url, grades=grades, manner=Manner(blind=True, seed=5)) as service:
        ana, ben = objects(service), objects(service, "ben")
        assert [e["object"] for e in ana] != [e["object"] for e in ben]
        assert {e["object"] for e in ana} == {e["object"] for e in ben}
        assert all(each["about"] is None for each in ana)
        answer = json.dumps(ana)
        assert not re.search(r"score|rank|probab|object_id", answer)
        for told in ("explanation.png", "neighbours", "similar"):
            path = f"/api/inspection/objects/{ana[0]['object']}/{told}"
            assert requests.get(service.url + path, timeout=30).status_code == 400
    with serving(run.url, grades=grades, manner=Manner(blind=True, seed=5)) as service:
        assert objects(service) == ana


def test_those_who_see_scores_see_the_best_first(inspected: Service) -> None:
    shown = objects(inspected)
    assert [each["about"]["rank"] for each in shown] == list(range(1, CANDIDATES + 1))
    assert "score_vit_b" not in shown[0]["about"]
    [first] = get(inspected, "/objects", grader="ana", count=1, details=True)["objects"]
    assert {"score_vit_b", "probability", "name"} <= set(first["about"])


def test_neighbours_in_score_and_what_is_seen_alike(inspected: Service) -> None:
    names = [each["object"] for each in objects(inspected)]

    def ranks(rank: int, which: str, count: int) -> list[int]:
        path = f"/objects/{names[rank - 1]}/{which}"
        told = get(inspected, path, grader="ana", count=count)["objects"]
        assert [names.index(each["object"]) + 1 for each in told] == [
            each["about"]["rank"] for each in told
        ]
        return [each["about"]["rank"] for each in told]

    assert ranks(5, "neighbours", 3) == [2, 3, 4, 6, 7, 8]
    assert ranks(1, "neighbours", 2) == [2, 3]
    assert ranks(CANDIDATES, "neighbours", 1) == [CANDIDATES - 1]
    # Candidates of the same sixth are seen alike, see `published_run`.
    same = [r for r in range(5, CANDIDATES + 1, 6) if r != WITHOUT_PIXELS]
    assert ranks(5, "similar", len(same) - 1) == same[1:]
    assert ranks(WITHOUT_PIXELS, "similar", 5) == []
    assert WITHOUT_PIXELS not in ranks(5, "similar", 20)


def make_set(
    path: Path, size: int = SIZE, bands: tuple[str, ...] = ("g", "r", "i"), count: int = 100
) -> Path:
    """Stamps of known truth, brighter by a magnitude in their own zero point."""
    rng = np.random.default_rng(8)
    with h5py.File(path, "w") as file:
        file["images"] = rng.normal(5, 1, (count, len(bands), size, size)).astype(np.float32)
        file["label"] = (np.arange(count) % 2).astype(np.uint8)
        file.create_dataset(
            "kind", data=["lens", "spiral"] * (count // 2), dtype=h5py.string_dtype()
        )
        attributes = {"bands": bands, "pixel_scale_arcsec": 0.25, "zero_point_mag": 26.0}
        file.attrs.update(attributes)
    return path


def test_training_images_are_shown_and_graded_like_candidates(
    run: RunDirectory, grades: str, tmp_path: Path
) -> None:
    images = make_set(tmp_path / "set.h5")
    manner = Manner(blind=True, seed=3, hidden_rate=0.2)
    for _ in range(2):  # the second time they are known already
        with serving(run.url, grades=grades, manner=manner, training_images=images) as service:
            shown = objects(service)
            assert len({each["object"] for each in shown}) == CANDIDATES + 10
            assert not re.search("spiral|is_lens|hidden|training|rank", json.dumps(shown))
            kinds = [{key for key in each if each[key] is not None} for each in shown]
            assert kinds == [kinds[0]] * len(kinds)  # nothing tells them apart
            sizes = set()
            for each in shown:
                url = f"{service.url}/api/inspection/objects/{each['object']}/picture.png"
                reply = requests.get(url, timeout=30)
                if each["has_picture"]:
                    sizes.add(imread(io.BytesIO(reply.content), format="png").shape)
            assert sizes == {(SIZE, SIZE, 4)}
    with serving(run.url, grades=grades, manner=manner, training_images=images) as service:
        for each in objects(service):
            assert post(service, event("grade", object=each["object"], grade="A")).ok
    with open_store(grades, writable=False) as store:
        assert len(store.hidden()) == 100
        [state] = states_of(store.events()).values()
        judged = reliability(state, store.hidden(), store.scheme())
    # Who calls everything a lens finds all and is wrong about all others.
    assert judged.completeness.value == judged.false_positives.value == 1.0
    assert judged.completeness.trials + judged.false_positives.trials == 10


def test_training_images_have_the_candidates_flux_scale(run: RunDirectory, tmp_path: Path) -> None:
    like = Stamps(run).image(1)
    images = TrainingImages(make_set(tmp_path / "set.h5"), like)
    first = images.image(images.hidden[0].object_id)
    assert np.mean(first.pixels) == pytest.approx(5 * 10**-0.4, rel=0.01)
    assert first.object_id.startswith("training-")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": SIZE + 2}, "pixels as the candidates have"),
        ({"bands": ("g", "r")}, "pixels as the candidates have"),
        (None, "a set of labelled stamps"),
    ],
)
def test_training_images_that_would_be_told_apart_are_refused(
    run: RunDirectory, grades: str, tmp_path: Path, change: dict[str, Any] | None, said: str
) -> None:
    path = tmp_path / "set.h5"
    if change is None:
        path.write_bytes(b"no HDF5")
    else:
        make_set(path, **change)
    with pytest.raises(InputError, match=said):
        Service(run.url, port=0, grades=grades, manner=Manner(True), training_images=path)
    with pytest.raises(InputError, match="--blind"):
        Service(run.url, port=0, grades=grades, training_images=make_set(tmp_path / "a.h5"))


def test_neighbours_in_score(inspected: Service) -> None:
    shown = objects(inspected)
    near = get(inspected, f"/objects/{shown[9]['object']}/neighbours", grader="ana", count=2)
    assert [each["about"]["rank"] for each in near["objects"]] == [8, 9, 11, 12]
    first = get(inspected, f"/objects/{shown[0]['object']}/neighbours", grader="ana")
    assert [each["about"]["rank"] for each in first["objects"]] == [2, 3, 4]


def test_pictures_of_objects(inspected: Service) -> None:
    shown = objects(inspected)
    base = f"{inspected.url}/api/inspection/objects/{shown[0]['object']}"
    plain = requests.get(f"{base}/picture.png?scale=2", timeout=30)
    less = requests.get(f"{base}/picture.png?scale=2&without_lens_light=true", timeout=30)
    pixels = [imread(io.BytesIO(reply.content), format="png") for reply in (plain, less)]
    assert pixels[0].shape == pixels[1].shape == (2 * SIZE, 2 * SIZE, 4)
    assert not np.array_equal(pixels[0], pixels[1])
    assert "max-age" in plain.headers["cache-control"]
    assert requests.get(f"{base}/explanation.png", timeout=30).status_code == 200
    assert [each["has_picture"] for each in shown].count(False) == 1


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"kind": "grade", "grade": "Z"}, 400),
        ({"kind": "grade"}, 400),
        ({"kind": "flag", "object": "0" * 24}, 400),
        ({"kind": "flag", "object": "../../etc/passwd"}, 400),
        ({"kind": "flag", "object": "1; DROP TABLE x"}, 400),
        ({"kind": "flag", "object": "x" * 5000}, 422),
        ({"kind": "delete"}, 422),
        ({"kind": "flag", "extra": 1}, 422),
        ({"kind": "comment", "comment": "x" * 20_000}, 422),
        ({"kind": "flag", "seconds_looked": -1}, 422),
        ({"kind": "flag", "key": ""}, 422),
    ],
)
def test_what_is_no_event_is_refused_and_nothing_is_kept(
    inspected: Service, grades: str, given: dict[str, Any], status: int
) -> None:
    first = objects(inspected)[0]["object"]
    bad = {"key": uuid.uuid4().hex, "object": first, **given}
    reply = post(inspected, event("flag", object=first), bad)
    assert reply.status_code == status
    assert "\n" not in reply.json()["error"]
    with open_store(grades, writable=False) as store:
        assert store.count() == 0


def test_a_grader_is_who_has_the_token(run: RunDirectory, grades: str, tmp_path: Path) -> None:
    tokens = {"ana": "token-of-ana-0123456", "ben": "token-of-ben-0123456"}
    file = tmp_path / "tokens.yaml"
    file.write_text("".join(f"{name}: {token}\n" for name, token in tokens.items()))
    with serving(run.url, token_file=file, grades=grades) as service:
        url = f"{service.url}/api/inspection"
        own = {"Authorization": f"Bearer {tokens['ana']}"}
        told = requests.get(url, headers=own, timeout=30).json()
        assert (told["grader"], told["named_by_token"]) == ("ana", True)
        other = requests.get(url, {"grader": "ben"}, headers=own, timeout=30)
        assert other.status_code == 409  # a page that stayed open: what it has is to wait
        # A browser is led to the page that asks for the token, and gets a cookie for it.
        with requests.Session() as browser:
            page = browser.get(service.url, headers={"Accept": "text/html"}, timeout=30)
            assert page.url.endswith("/login")
            for wrong in ("no", "", "tokën ★", "a\r\nSet-Cookie: x=1"):
                reply = browser.post(f"{service.url}/login", {"token": wrong}, timeout=30)
                assert reply.url.endswith("/login")
                assert reply.status_code == 401
                assert '<p role="alert">' in reply.text
                assert not browser.cookies
            right = browser.post(f"{service.url}/login", {"token": tokens["ben"]}, timeout=30)
            assert right.url == f"{service.url}/"
            assert browser.get(url, timeout=30).json()["grader"] == "ben"
            [cookie] = browser.cookies
            assert "HttpOnly" in str(cookie.__dict__)
            # Nobody else's page logs out, and whoever logs out has no cookie any more.
            out = f"{service.url}/logout"
            strange = {"Sec-Fetch-Site": "cross-site"}
            assert browser.post(out, headers=strange, timeout=30).status_code == 403
            assert len(browser.cookies) == 1
            assert browser.post(out, timeout=30).status_code == 204
            assert not browser.cookies


def test_two_graders_at_once_lose_nothing(inspected: Service, grades: str) -> None:
    names = [each["object"] for each in objects(inspected)]

    def work(grader: str) -> None:
        for name in names:
            assert post(inspected, event("grade", object=name, grade="C"), grader=grader).ok

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ["ana", "ben"]))
    with open_store(grades, writable=False) as store:
        assert store.count() == 2 * CANDIDATES
    assert get(inspected, grader="ben")["progress"]["graded"] == CANDIDATES


@pytest.mark.timeout(240)
def test_whatever_was_answered_outlives_the_server(run: RunDirectory, tmp_path: Path) -> None:
    """A server killed while grades come in: all that it answered is on disk, and what a client
    sends again counts once."""
    grades = tmp_path / "grades.sqlite"
    command = [sys.executable, "-m", "lenspipe", "serve", run.url, "--port", "0", "--grades"]
    answered: list[str] = []
    waiting: dict[str, Any] | None = None
    for kill_after_s in (0.4, 0.9):
        process = subprocess.Popen(
            [*command, str(grades)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        try:
            assert process.stdout is not None
            url = re.split(r"  +", process.stdout.readline().strip())[1]
            listed = requests.get(
                f"{url}/api/inspection/objects", {"grader": "ana"}, timeout=30
            ).json()["objects"]
            end = time.monotonic() + kill_after_s
            killed = False
            for k in range(100_000):
                if time.monotonic() > end and not killed:
                    process.send_signal(signal.SIGKILL)
                    killed = True
                if waiting is None:
                    waiting = event("grade", object=listed[k % len(listed)]["object"], grade="A")
                try:
                    told = requests.post(
                        f"{url}/api/inspection/events?grader=ana",
                        json={"events": [waiting]},
                        timeout=30,
                    ).json()
                except requests.RequestException:
                    break
                answered += told["kept"]
                waiting = None
        finally:
            process.kill()
            process.communicate()
    with open_store(grades, writable=False) as store:
        kept = [each.key for each in store.events()]
    assert len(answered) > 10
    assert set(answered) <= set(kept)
    assert len(kept) == len(set(kept))
    assert set(kept) - set(answered) <= ({waiting["key"]} if waiting else set())
