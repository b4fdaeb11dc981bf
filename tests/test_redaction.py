from __future__ import annotations

import json

import pytest

from lenspipe.errors import InputError
from lenspipe.redaction import HIDDEN, redact, redact_values
from lenspipe.run.identity import fingerprint
from lenspipe.select.files import CatalogueFile
from lenspipe.storage.remote import url_to_fs

SECRET = "planted/secret+of0the1tests2345678901234"  # noqa: S105  # opens nothing


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"https://h/x.fits?X-Amz-Signature={SECRET}&x=1", "https://h/x.fits?X-Amz-Signature="),
        (f"https://h/x?a=1&X-Amz-Security-Token={SECRET}'", "https://h/x?a=1&"),
        (f"https://a.blob.core.windows.net/c/x?sv=2&sig={SECRET}", "?sv=2&sig="),
        (f"https://h/x?X-Goog-Signature={SECRET}", "https://h/x?"),
        (f"https://h/x?token={SECRET} 404", " 404"),
        (f"cannot open s3://AKIAABCDEFGHIJKLMNOP:{SECRET}@bucket/run", "@bucket/run"),
        (f"https://user:{SECRET}@host/x", "@host/x"),
        (f"AccountName=me;AccountKey={SECRET};Endpoint", "AccountName=me;"),
        (f"{{'aws_secret_access_key': '{SECRET}'}}", "aws_secret_access_key"),
    ],
)
def test_no_credential_of_a_url_or_a_library_is_told(text: str, kept: str) -> None:
    told = redact(text)
    assert SECRET not in told
    assert "AKIA" not in told
    assert kept in told


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/run: expected a run, found none",
        "abfs://container@account.dfs.core.windows.net/run",
        "http://127.0.0.1:9000/bucket/a.parquet?versionId=3",
        "cuts.bright: i_mag < 21 AND signature = 3",
    ],
)
def test_what_is_no_credential_is_told_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SECRET),
        ("AZURE_STORAGE_CONNECTION_STRING", SECRET),
        ("FSSPEC_S3_SECRET", SECRET),
        ("FSSPEC_S3", json.dumps({"secret": SECRET, "endpoint_url": "http://127.0.0.1:9000"})),
    ],
)
def test_secrets_of_the_environment_are_not_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"refused: {SECRET} at http://127.0.0.1:9000") == (
        "refused: *** at http://127.0.0.1:9000"
    )


def test_a_url_signed_anew_names_the_same_file() -> None:
    signed, anew, other = (
        CatalogueFile(f"https://h/{name}.parquet?X-Amz-Signature={signature}", 10, "etag")
        for name, signature in (("a", "1234"), ("a", "5678"), ("b", "1234"))
    )
    assert fingerprint([signed]) == fingerprint([anew]) != fingerprint([other])


@pytest.mark.parametrize("url", [f"s3://key:{SECRET}@bucket/run", f"https://me:{SECRET}@host/x"])
def test_a_url_with_a_password_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(InputError, match="no user or password") as caught:
        url_to_fs(url)
    assert SECRET not in str(caught.value)


def test_values_are_redacted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_TOKEN", "bright_enough")
    found = redact_values(
        {
            "survey": {"cuts": {"bright_enough": "x < 1 AND 'u?sig=A\"' <> y"}, "n": 3},
            "paths": ["https://host/a?sig=secret", None],
        },
        {"survey.cuts"},
    )
    assert found == {
        "survey": {"cuts": {"bright_enough": "x < 1 AND 'u?sig=A\"' <> y"}, "n": 3},
        "paths": [f"https://host/a?sig={HIDDEN}", None],
    }
