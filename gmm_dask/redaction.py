"""What nobody outside may read: secrets in URLs, beside telling names, and of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
MIN_SECRET = 8  # characters; shorter values of the environment are ordinary words too often

_LONG = (
    "secret|token|password|passwd|passphrase|signature|credentials?|api[_-]?key"
    "|(?:access|account|shared|secret|private)[_-]?key(?:[_-]?id)?"
)
_SHORT = "pwd|sas|sig"
_NAME = re.compile(
    rf"(?:{_LONG}|(?<![a-z])(?:{_SHORT}|key)|connection[_-]?string)s?(?![a-z])", re.IGNORECASE
)
_NO_SECRET = {"tls_key"}  # the name of a file

# A word that tells, not a folder `token=1` of a dataset; bounded, so that no text takes long.
_TELLING = rf"(?<![\w/-])[\w-]{{0,40}}?(?:{_LONG}|(?<![A-Za-z])(?:{_SHORT})|(?<=[?&])key)"
_PAIR = re.compile(rf"({_TELLING}\s?=\s?[\"']?)([^\s&;,\"')]+)", re.IGNORECASE)
_FIELD = re.compile(rf"([\"']{_TELLING}[\"']\s?:\s?[\"'])([^\"']+)", re.IGNORECASE)
# User and password of a URL, whatever signs the password has. A number after "@" is no host: it
# names a version.
_HOST = r"@(?!\d+(?![\w.-]))"
_PASSWORD = re.compile(rf"(?<=://)[^/?#\s:@\"']*:[^\s\"']*(?={_HOST})")
_USER = re.compile(rf"([A-Za-z][A-Za-z0-9+.\-]{{0,20}})://[^/?#\s:@\"']+(?={_HOST})")
_CONTAINERS = {"abfs", "abfss", "az", "wasb", "wasbs"}  # container@account is no user
_BARE = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
    re.compile(r"(?<![0-9A-Za-z])(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])"),
)


def redacted(text: str) -> str:
    """The text without what looks like a secret, or is the value of a secret of the environment."""
    for value in _secrets_of_environment():
        text = text.replace(value, HIDDEN)
    return _without_shapes(text)


def redacted_document(document: Any) -> Any:
    """A JSON document whose texts are redacted, and with no value under a key that tells."""
    if isinstance(document, Mapping):
        return {
            key: HIDDEN if value and is_secret_name(str(key)) else redacted_document(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [redacted_document(value) for value in document]
    return redacted(document) if isinstance(document, str) else document


def secrets_in(document: Any) -> Iterator[str]:
    """Where a document of settings holds a secret, and why one thinks so; never the value."""
    return _secrets_at("", document, set())


@lru_cache(1024)
def is_secret_name(name: str) -> bool:
    """Whether a key, an option or a variable of this name holds a secret."""
    return name not in _NO_SECRET and _NAME.search(name) is not None


def holds_secret(text: str) -> bool:
    """Whether something in the text looks like a secret, as it is or decoded."""
    return any(_without_shapes(each) != each for each in (text, unquote(text)))


def _secrets_at(place: str, value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, str):
        if holds_secret(value):
            yield f"{place or 'settings'}: holds something like a password, a key or a signature"
        return
    if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
        return  # an alias in YAML can stand for more than anyone can walk through
    seen.add(id(value))
    named = value.items() if isinstance(value, Mapping) else ((None, each) for each in value)
    for key, each in named:
        where = place if key is None else ".".join(filter(None, (place, redacted(str(key)))))
        if key is not None and each is not None and is_secret_name(str(key)):
            yield f"{where}: is named like a secret"
        elif key is not None and holds_secret(str(key)):
            yield f"{where}: holds something like a password, a key or a signature"
        else:
            yield from _secrets_at(where, each, seen)


def _without_shapes(text: str) -> str:
    if "://" in text:
        text = _PASSWORD.sub(HIDDEN, text)
        text = _USER.sub(_without_user, text)
    text = _PAIR.sub(rf"\g<1>{HIDDEN}", text)
    text = _FIELD.sub(rf"\g<1>{HIDDEN}", text)
    for pattern in _BARE:
        text = pattern.sub(HIDDEN, text)
    return text


def _without_user(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() in _CONTAINERS else f"{match[1]}://{HIDDEN}"


def _secrets_of_environment() -> list[str]:
    """Longest first, so that none is left in part."""
    values = {
        value
        for name, value in os.environ.items()
        # Not the name of a file that holds one.
        if len(value) >= MIN_SECRET and is_secret_name(name) and not value.startswith("/")
    }
    return sorted(values, key=len, reverse=True)
