"""What must not be read outside: secrets in URLs, in pairs of key and value, in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
MIN_SECRET = 8  # characters; a shorter value of the environment would blot out ordinary words

_WORDS = "secret|token|password|passwd|passphrase|pwd|sas|sig|signature|credentials?"
_KEYS = "api[_-]?key|(?:access|account|shared|secret|private)[_-]?key(?:[_-]?id)?"
_SECRET_NAME = re.compile(
    rf"(?:^|[^a-z])(?:{_WORDS}|keys?|connection[_-]?string)(?:[^a-z]|$)|{_KEYS}", re.IGNORECASE
)
# Of a URL's user info all is hidden up to the last "@" of the host part.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#\s]*)@")
_PAIR = re.compile(
    rf"((?<![A-Za-z])(?:[\w-]*[_-])?(?:{_WORDS}|{_KEYS})[\"']?\s*=\s*[\"']?)([^\s&;,\"']+)"
    rf"|([\"'](?:[\w-]*[_-])?(?:{_WORDS}|{_KEYS}|key)[\"']\s*:\s*[\"'])([^\"']+)",
    re.IGNORECASE,
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL)
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_CONTAINERS = {"abfs", "abfss", "az", "wasb", "wasbs"}  # container@account is no user info
_NO_SECRET = {"tls_key"}  # the name of a file


def redacted(text: str) -> str:
    """The text without user info and signatures of URLs, values of secret keys, and secrets of
    the environment."""
    for value in sorted(_secrets_of_environment(), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _USER_INFO.sub(_without_user, text)
    text = _PEM.sub(HIDDEN, text)
    text = _AWS_KEY.sub(HIDDEN, text)
    return _PAIR.sub(lambda match: f"{match[1] or match[3]}{HIDDEN}", text)


def redacted_document(document: Any) -> Any:
    """The JSON document with every text redacted, and the values of secret keys hidden."""
    if isinstance(document, Mapping):
        return {
            key: HIDDEN
            if is_secret_name(str(key)) and value is not None
            else redacted_document(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [redacted_document(value) for value in document]
    return redacted(document) if isinstance(document, str) else document


def secrets_in(document: Any, place: str = "") -> Iterator[str]:
    """Where a document of settings holds a secret: the place and why, never the value."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            where = f"{place}.{key}" if place else str(key)
            if is_secret_name(str(key)) and value is not None:
                yield f"{redacted(where)}: is named like a secret"
            else:
                yield from secrets_in(value, where)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from secrets_in(value, place)
    elif isinstance(document, str) and (redacted(document) != document or _is_signed(document)):
        yield f"{place}: holds a secret"


def is_secret_name(name: str) -> bool:
    """Whether a key, an option or a variable of this name holds a secret."""
    return name not in _NO_SECRET and _SECRET_NAME.search(name) is not None


def _without_user(match: re.Match[str]) -> str:
    scheme, user = match[1], match[2]
    plain = scheme.lower() in _CONTAINERS and ":" not in unquote(user)
    return match[0] if plain else f"{scheme}://{HIDDEN}@"


def _is_signed(text: str) -> bool:
    return "://" in text and redacted(unquote(text)) != unquote(text)


def _secrets_of_environment() -> set[str]:
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= MIN_SECRET and is_secret_name(name) and not value.startswith("/")
    }
