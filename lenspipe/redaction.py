"""Credentials taken out of what is told or written: signed URLs, user parts of URLs, known keys."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

HIDDEN = "***"

# `scheme://user:password@host`; secrets of AWS may hold `/`. A lone name before `@` is a container
# in Azure's URLs (abfs://container@account/), and a token in others.
_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s'\"@:]*:[^?#\s'\"@]*@"
    r"|(?P<plain>(?:https?|s3a?|gs|gcs)://)[^/?#\s'\"@]+@"
)
# Signatures and tokens: AWS (X-Amz-…, AWSAccessKeyId), Google (X-Goog-…), Azure (SAS `sig`), and
# what other services call theirs.
_QUERY = re.compile(
    r"(?P<name>[?&;](?:amp;)?(?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature"
    r"|X-Goog-(?:Signature|Credential)|GoogleAccessId|sig|(?:access_|auth_|id_)?token|api_?key"
    r"|password|passwd|secret)=)[^&;\s'\"<>]+",
    re.IGNORECASE,
)
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
# Azure's connection strings, and key=value as libraries print their options.
_ASSIGNED = re.compile(
    r"(?P<name>(?:AccountKey|SharedAccessSignature|aws_secret_access_key|aws_session_token)"
    r"['\"]?\s*[=:]\s*['\"]?)[^\s;,'\"]+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|ACCOUNT_KEY|STORAGE_KEY|SAS|CONNECTION_STRING|ACCESS_KEY)"
    r"|^FSSPEC_.*_(KEY|SECRET|TOKEN)$"
)
_SHORTEST = 8  # characters; shorter values stand in ordinary text by chance


def redact(text: str) -> str:
    """The text without credentials: what identifies nobody stays."""
    if "://" in text:
        text = _USER.sub(lambda found: f"{found['scheme'] or found['plain']}{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\g<name>{HIDDEN}", text)
    text = _KEY_ID.sub(HIDDEN, text)
    for secret in _known(_environment()):
        text = text.replace(secret, HIDDEN)
    return text


def redact_values(content: Any, verbatim: Collection[str] = (), path: str = "") -> Any:
    """JSON content without credentials in its texts, keys included.

    verbatim: dotted paths of what stays as it is, where the letters themselves decide.
    """
    if path in verbatim:
        return content
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, Mapping):
        return {
            redact(str(key)): redact_values(value, verbatim, f"{path}.{key}" if path else str(key))
            for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [redact_values(value, verbatim, path) for value in content]
    return content


def has_user(url: str) -> bool:
    """Whether a URL names a user or a password before its host."""
    return _USER.match(url) is not None


def _environment() -> tuple[str, ...]:
    return tuple(
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and (_SECRET_NAME.search(name) or _is_options(name, value))
    )


def _is_options(name: str, value: str) -> bool:
    """Whether a variable holds options of a filesystem as JSON, as fsspec takes them."""
    return name.startswith("FSSPEC_") and value.lstrip().startswith("{")


@lru_cache(maxsize=8)
def _known(values: tuple[str, ...]) -> tuple[str, ...]:
    """Secrets of the environment, the longest first; of fsspec's JSON the secret members."""
    found: set[str] = set()
    for value in values:
        members = re.findall(
            r'"(?:key|secret|token|account_key|sas_token|aws_[a-z_]+)"\s*:\s*"([^"]+)"', value
        )
        found.update(members if value.lstrip().startswith("{") else [value])
    return tuple(sorted((v for v in found if len(v) >= _SHORTEST), key=len, reverse=True))
