from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from lenspipe.serve.access import HEADERS, Access, access_for, is_loopback, read_tokens
from lenspipe.serve.command import Service
from tests.serve.running import serving

TOKENS = {"rubin": "a-token-of-rubin-0123", "vera": "a-token-of-vera-45678"}


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    path.write_text("".join(f"{name}: {token}\n" for name, token in TOKENS.items()))
    return path


@pytest.fixture(scope="module")
def guarded(run: RunDirectory, token_file: Path) -> Iterator[Service]:
    with serving(run.url, token_file=token_file) as service:
        yield service


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_is_told(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_beyond_loopback_there_is_always_a_token() -> None:
    assert not access_for("127.0.0.1", None).tokens
    [(name, token)] = access_for("0.0.0.0", None).tokens.items()
    assert name == "anyone"
    assert len(token) >= 32
    assert token not in repr(access_for("0.0.0.0", None))
    assert access_for("0.0.0.0", None).tokens != access_for("0.0.0.0", None).tokens


@pytest.mark.parametrize(
    "path",
    ["/scs?RA=1&DEC=1&SR=1", "/tap/tables", "/tap/sync", "/api/run", "/api/candidates/1/stamp.png",
     "/metrics", "/openapi.json", "/no-such-page"],
)  # fmt: skip
def test_without_a_token_there_is_nothing(guarded: Service, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer no-such-token-0000"},
        {"Authorization": "Basic x"},
        {"Cookie": "lenspipe_token=no-such-token-0000"},
    ):
        reply = requests.get(guarded.url + path, headers=headers, timeout=30)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
    # A token in an address would stand in logs and histories.
    assert (
        requests.get(guarded.url + path, {"token": TOKENS["rubin"]}, timeout=30).status_code == 401
    )


def test_with_a_token_there_is_all(guarded: Service) -> None:
    for headers in ({"Authorization": f"Bearer {TOKENS['vera']}"},
                    {"Cookie": f"other=1; lenspipe_token={TOKENS['rubin']}"}):  # fmt: skip
        reply = requests.get(f"{guarded.url}/api/run", headers=headers, timeout=30)
        assert reply.status_code == 200
    assert requests.get(f"{guarded.url}/healthz", timeout=30).json() == {"status": "ok"}


def test_every_answer_has_the_headers_that_keep_browsers_safe(guarded: Service) -> None:
    for path in ("/healthz", "/api/run", "/no-such-page"):
        reply = requests.get(guarded.url + path, timeout=30)
        assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
        assert reply.headers["server"] == "lenspipe"  # neither versions nor what it is made with


def test_a_page_of_another_site_reaches_nothing(service: Service) -> None:
    url = f"{service.url}/healthz"
    renamed = requests.get(url, headers={"Host": "evil.example:80"}, timeout=30)
    assert renamed.status_code == 421
    query = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 ra FROM scores"}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        reply = requests.post(f"{service.url}/tap/sync", query, headers=headers, timeout=30)
        assert reply.status_code == 403
    own = {"Origin": service.url}
    assert (
        requests.post(f"{service.url}/tap/sync", query, headers=own, timeout=60).status_code == 200
    )


@pytest.mark.parametrize("path", ["/tap/sync", "/tap/tables", "/scs", "/api/run"])
def test_a_page_of_another_site_runs_no_query(service: Service, path: str) -> None:
    def status(at: str, site: str | None) -> int:
        headers = {} if site is None else {"Sec-Fetch-Site": site}
        return requests.get(service.url + at, headers=headers, timeout=60).status_code

    for site in ("cross-site", "same-site"):
        assert status(path, site) == 403
        assert status("/healthz", site) == status("/openapi.json", site) == 200
    assert all(status(path, site) != 403 for site in ("same-origin", "none", None))


def test_behind_a_proxy_that_has_tls(guarded: Service) -> None:
    """On the same machine, under a name that people know; it sends on the host as it came."""
    host = {"Host": "lenses.example.org:8443", "X-Forwarded-Proto": "https"}
    headers = {**host, "Authorization": f"Bearer {TOKENS['vera']}"}
    assert requests.get(f"{guarded.url}/healthz", headers=host, timeout=30).status_code == 200
    assert requests.get(f"{guarded.url}/api/run", headers=host, timeout=30).status_code == 401
    told = requests.get(f"{guarded.url}/tap/capabilities", headers=headers, timeout=30)
    assert "https://lenses.example.org:8443/tap" in told.text
    query = {"LANG": "ADQL", "QUERY": "SELECT TOP 1 ra FROM scores"}
    for more, status in (
        ({"Origin": "https://lenses.example.org:8443"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://lenses.example.org"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://lenses.example.org:8443", "Sec-Fetch-Site": "cross-site"}, 403),
    ):
        url = f"{guarded.url}/tap/sync"
        reply = requests.post(url, query, headers={**headers, **more}, timeout=60)
        assert reply.status_code == status, more
    form = {"token": TOKENS["vera"]}
    own = {**host, "Origin": "https://lenses.example.org:8443"}
    page = requests.post(
        f"{guarded.url}/login", form, headers=own, timeout=30, allow_redirects=False
    )
    assert page.status_code == 303
    assert "secure" in page.headers["set-cookie"].lower()


def test_what_is_too_large_is_refused(service: Service) -> None:
    reply = requests.post(f"{service.url}/tap/sync", data=b"x" * (5 * 1024**2), timeout=30)
    assert reply.status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(80):
            yield b"QUERY=" + b"x" * 65536

    try:
        status = requests.post(f"{service.url}/tap/sync", data=pieces(), timeout=30).status_code
    except requests.ConnectionError:
        status = 413
    assert status >= 400
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as raw:
        raw.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"
        )
        assert b"400" in raw.recv(100)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("rubin: short", "16 characters"),
        ("rubin: 0123456789 abcdef; x", "letters, digits"),
        ("rubin: 0123456789abcdefgé", "letters, digits"),
        ('" rubin": 0123456789abcdef', "blanks"),
        ("- a\n- b", "name: token"),
        ("", "name: token"),
        ("a: 0123456789abcdef\nb: 0123456789abcdef", "another token"),
        ("a: [", "YAML"),
    ],
)
def test_tokens_that_are_none_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_tokens(path)


def test_tokens_show_in_no_representation() -> None:
    assert "0123" not in repr(Access(TOKENS))
