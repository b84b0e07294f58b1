"""What nobody outside may read: secrets in URLs, beside telling names, and of the environment."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from gmm_dask.environment import LONG, SHORT, is_secret_name, without_secrets

HIDDEN = "***"
_LEADS = ("lead", "cookie", "bearer", "lower")

# A word that tells, not a folder `token=1` of a dataset; bounded, so that no text takes long.
_TELLING = rf"(?<![\w/-])[\w-]{{0,40}}?(?:{LONG}|(?<![A-Za-z])(?:{SHORT})|(?<=[?&])key)"
# A value in quotes, of any kind and however often escaped, up to the same; or one without.
_QUOTED = r"(?P<quote>\\{0,8}[\"'])(?:(?!(?P=quote))(?:\\.|[^\\\n]))+"
_BARE_VALUE = r"(?P<bare>[^\s,;\"'(){}\[\]\\]+)"
_PAIR = re.compile(
    rf"(?P<lead>{_TELLING}\s{{0,4}}(?:=>|:=|=(?![=>]))\s{{0,4}})"
    rf"(?:{_QUOTED}|[^\s&;,\"')=][^\s&;,\"')]*)",
    re.IGNORECASE,
)
_FIELD = re.compile(
    rf"(?P<lead>(?<!column )\\{{0,8}}[\"']{_TELLING}\\{{0,8}}[\"']\s{{0,4}}:\s{{0,4}}[bu]?)"
    rf"(?:{_QUOTED}|{_BARE_VALUE}(?=\s*(?:$|[,;)}}\]])))",
    re.IGNORECASE | re.MULTILINE,
)
# `password: x` as in YAML. What goes on like a sentence is one, unless the word looks random.
_LINE = re.compile(
    rf"(?P<lead>{_TELLING}[ \t]{{0,4}}:(?P<space>[ \t]{{0,8}}))"
    rf"(?:{_QUOTED}|{_BARE_VALUE}(?P<end>[ \t]*(?:$|[,;)}}\]\"']|[ \t]\#))?)",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCK = re.compile(
    rf"(?P<lead>{_TELLING}[ \t]{{0,4}}:[ \t]{{1,8}}[|>][-+\d]{{0,2}}[ \t]*\n(?P<indent>[ \t]+))"
    r"[^\n]*(?:\n(?P=indent)[^\n]*)*",
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
