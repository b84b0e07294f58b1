"""What nobody outside may read: secrets in URLs, beside telling names, and of the environment."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gmm_dask.escapes import HEXADECIMAL, every_way

MIN_SECRET = 8  # characters; shorter values of the environment are ordinary words too often

LONG = (
    "secret|token|password|passwd|passphrase|signature|credentials?|api[_-]?key|auth[_-]?string"
    "|(?:access|account|shared|secret|private)[_-]?key(?:[_-]?id)?"
)
SHORT = "pwd|sas|sig"
_NAME = re.compile(
    rf"(?:{LONG}|(?<![a-z])(?:{SHORT}|key)|connection[_-]?string)s?(?![a-z])", re.IGNORECASE
)
_NO_SECRET = {"tls_key"}  # the name of a file
_OF_TWO_PARTS = re.compile(r"auth[_-]?string|credentials?|basic[_-]?auth", re.IGNORECASE)
_PASSWORD_OF_URL = re.compile(r"://[^/?#\s:@]*:([^\s/]+)@")


@lru_cache(1024)
def is_secret_name(name: str) -> bool:
    """Whether a key, an option or a variable of this name holds a secret."""
    return name not in _NO_SECRET and _NAME.search(name) is not None


def without_secrets(text: str, mask: str) -> str:
    """The text with the mask in the place of every secret of the environment."""
    secrets = _secrets()
    spans = sorted(_found(text, secrets)) if secrets else []
    parts, end = [], 0
    for start, stop in spans:
        if start >= end:
            parts += [text[end:start], mask]
        end = max(end, stop)
    return "".join(parts) + text[end:]


def _found(text: str, secrets: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where in the text the secrets are, in whatever form."""
    cores = [core for secret in secrets for core in _base64(secret)]
    for decoded in every_way(text):
        for secret in secrets:
            yield from decoded.places(secret)
            if " " in secret:
                yield from decoded.places(secret.replace(" ", "+"))
        in_base64 = decoded.without_breaks()
        for core in cores:
            yield from in_base64.places(core)
        in_hexadecimal = decoded.translated(HEXADECIMAL)
        for secret in secrets:
            yield from in_hexadecimal.places(secret.encode("utf-8", "surrogateescape").hex())


def _secrets() -> tuple[str, ...]:
    """Longest first, so that none is left in part."""
    return _secrets_in(tuple(sorted(os.environ.items())))


@lru_cache(4)
def _secrets_in(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    found = {
        form
        for name, value in environment
        for secret in _secrets_of(name, value)
        for form in _forms(secret)
        if len(form) >= MIN_SECRET
    }
    return tuple(sorted(found, key=len, reverse=True))


def _secrets_of(name: str, value: str) -> Iterator[str]:
    for password in _PASSWORD_OF_URL.findall(value):
        yield from (password, unquote(password))
    if not is_secret_name(name) or _is_file(value):
        return
    yield value
    if _OF_TWO_PARTS.search(name):
        yield from value.split(":", 1)
    yield from (line for line in value.splitlines() if not line.startswith("-----"))
    if value.lstrip().startswith("{"):
        yield from _in_document(value)


def _forms(secret: str) -> Iterator[str]:
    """The secret, and what messages make of it: one line, no full stop, bytes as Latin-1."""
    line = " ".join(secret.split())
    yield from (secret, line, line.rstrip("."))
    if not secret.isascii():
        yield secret.encode("utf-8", "surrogateescape").decode("latin-1")


def _in_document(value: str) -> Iterator[str]:
    """The secrets in a document of JSON, such as the key of a service account."""
    try:
        waiting = [("", json.loads(value))]
    except (ValueError, RecursionError):
        return
    while waiting:
        name, each = waiting.pop()
        if isinstance(each, Mapping):
            waiting += [(str(key), inner) for key, inner in each.items()]
        elif isinstance(each, list):
            waiting += [(name, inner) for inner in each]
        elif isinstance(each, str) and is_secret_name(name):
            yield from (each, *each.splitlines())


def _is_file(value: str) -> bool:
    """Whether it is the name of a file that holds a secret, and not one itself."""
    if not value.startswith("/") or "\0" in value:
        return False
    try:
        return Path(value).parent.is_dir() and Path(value).parent != Path("/")
    except OSError:
        return False


@lru_cache(256)
def _base64(secret: str) -> tuple[str, ...]:
    """What is in base64 for URLs of the secret, wherever in other bytes it stands."""
    data = secret.encode("utf-8", "surrogateescape")
    cores = []
    for before in range(3):
        encoded = base64.urlsafe_b64encode(bytes(before) + data).decode("ascii").rstrip("=")
        first, last = -(-8 * before // 6), 8 * (before + len(data)) // 6
        cores.append(encoded[first:last])
    return tuple(cores)


HIDDEN = "***"
_LEADS = ("lead", "cookie", "bearer", "lower")

# A word that tells, not a folder `token=1` of a dataset; bounded, so that no text takes long.
_TELLING = rf"(?<![\w/-])[\w-]{{0,40}}?(?:{LONG}|(?<![A-Za-z])(?:{SHORT})|(?<=[?&])key)"
# A value in quotes, of any kind and however often escaped, up to the same; or one without.
_QUOTED = r"(?P<quote>\\{0,8}[\"'])(?:(?!(?P=quote))(?:\\.|[^\\\n]))+"
_END = r"(?:$|\\[nr])"  # of a line, as it is or as a message shows it
_BARE_VALUE = r"(?P<bare>[^\s,;\"'(){}\[\]\\]+)"
_PAIR = re.compile(
    rf"(?P<lead>{_TELLING}\s{{0,4}}(?:=>|:=|=(?![=>]))\s{{0,4}})"
    rf"(?:{_QUOTED}|[^\s&;,\"')=][^\s&;,\"')]*)",
    re.IGNORECASE,
)
_FIELD = re.compile(
    rf"(?P<lead>(?<!column )\\{{0,8}}[\"']{_TELLING}\\{{0,8}}[\"']\s{{0,4}}:\s{{0,4}}[bu]?)"
    rf"(?:{_QUOTED}|{_BARE_VALUE}(?=\s*(?:{_END}|[,;)}}\]])))",
    re.IGNORECASE | re.MULTILINE,
)
# `password: x` as in YAML. What goes on like a sentence is one, unless the word looks random.
_LINE = re.compile(
    rf"(?P<lead>{_TELLING}[ \t]{{0,4}}:(?P<space>[ \t]{{0,8}}))"
    rf"(?:{_QUOTED}|{_BARE_VALUE}(?P<end>[ \t]*(?:{_END}|[,;)}}\]\"']|[ \t]\#))?)",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCK = re.compile(
    rf"(?P<lead>{_TELLING}[ \t]{{0,4}}:[ \t]{{1,8}}[|>][-+\d]{{0,2}}[ \t]*(?:\n|\\n)"
    r"(?P<indent>[ \t]+))"
    r"(?:(?!\\n)[^\n])*(?:(?:\n|\\n)(?P=indent)(?:(?!\\n)[^\n])*)*",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?=.*[A-Za-z])(?=.*\d)|[a-z][A-Z]|[!@$%^&+=~?<>|]")
_NO_VALUE = {"str", "int", "float", "bool", "bytes", "any", "none", "null", "true", "false"}
_NO_VALUE |= {"~", "|", ">", "|-", ">-"}
_HEADER = re.compile(
    r"(?P<lead>(?i:\b(?:proxy-)?authorization)[\"']?\s?[:=]\s?[\"']?(?:[A-Za-z][\w-]{2,20}\s{1,4})?)"
    r"(?!\w+\s+\w)[^\s\"',;]+"
    r"|(?P<cookie>(?i:\b(?:set-)?cookie):[ \t]+)[^\r\n\"']+"
    r"|(?P<bearer>\bBearer\s{1,4})(?!(?:tokens?|auth\w*|schemes?|realm|is|of|was|in|or|and)\b)"
    r"[\w.~+/=%-]{3,}"
    r"|(?P<lower>\bbearer\s{1,4})(?=[\w.~+/=%-]*\d)[\w.~+/=%-]{8,}"
)
_BASIC = re.compile(r"\b(?P<lead>Basic\s{1,4})(?P<code>[A-Za-z0-9+/]{4,}={0,2})")
# User and password of a URL, whatever signs the password has. A number after "@" is no host: it
# names a version.
_HOST = r"@(?!\d+(?![\w.-]))"
_PASSWORD = re.compile(rf"(?<=://)[^/?#\s:@\"']*:[^\s\"']*(?={_HOST})")
_USER = re.compile(rf"([A-Za-z][A-Za-z0-9+.\-]{{0,20}})://[^/?#\s:@\"']+(?={_HOST})")
_CONTAINERS = {"abfs", "abfss", "az", "wasb", "wasbs"}  # container@account is no user
_BARE = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
    re.compile(r"(?<![0-9A-Za-z])(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])"),
    re.compile(r"(?<![0-9A-Za-z])(?:gh[opsu]|pn[ub])_[0-9A-Za-z]{20,}"),  # of GitHub, of Prefect
    re.compile(r"(?<![0-9A-Za-z])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"),  # of JSON
)


def redacted(text: str) -> str:
    """The text without what looks like a secret, or is the value of a secret of the environment."""
    return _without_shapes(without_secrets(text, HIDDEN))


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


def secret_problem(word: str) -> str | None:
    """Why a word that everybody may read must be another one; None where it is no secret."""
    if redacted(word) == word:
        return None
    return "it looks like a secret, or is one of the environment, and is for all to read"


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
    for pattern in (_HEADER, _PAIR, _FIELD, _BLOCK, _LINE):
        text = pattern.sub(_without_value, text)
    text = _BASIC.sub(_without_code, text)
    for pattern in _BARE:
        text = pattern.sub(HIDDEN, text)
    return text


def _without_value(match: re.Match[str]) -> str:
    groups = match.groupdict()
    lead = next(each for each in map(groups.get, _LEADS) if each)
    if groups.get("bare") and _is_prose(groups):
        return match[0]
    return f"{lead}{groups.get('quote') or ''}{HIDDEN}{groups.get('end') or ''}"


def _is_prose(groups: Mapping[str, str | None]) -> bool:
    """Whether what follows a telling word is more likely a sentence than a secret."""
    bare = groups["bare"] or ""
    if bare.lower() in _NO_VALUE:
        return True
    goes_on = groups.get("end", "") is None or groups.get("space") == ""
    return goes_on and not _RANDOM.search(bare)


def _without_code(match: re.Match[str]) -> str:
    """The header of a user and a password; a word that merely follows `Basic` stays."""
    try:
        is_one = b":" in base64.b64decode(match["code"] + "==")
    except binascii.Error:
        is_one = False
    return f"{match['lead']}{HIDDEN}" if is_one else match[0]


def _without_user(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() in _CONTAINERS else f"{match[1]}://{HIDDEN}"
