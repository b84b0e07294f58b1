"""JSON documents, checksums and times: one canonical form to write, one strict way to read."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from gmm_dask.errors import GmmDaskError, OutputError

SEAL = "checksum"  # the field that seals a document
MAX_BYTES = 512 << 20  # of any record; a larger file is not read, and not written
MAX_COUNT = 2**63 - 1
MAX_DIGITS = 30  # a time in nanoseconds has up to 29, for seconds of 64 bits

Clock = Callable[[], str]  # tells the time as `utc_now` does


def canonical_json(document: Any) -> bytes:
    """The one UTF-8 form of a document: equal documents give equal bytes, floats survive exactly.

    What is written can be read by `parse_json`, as what it was.

    Raises
    ------
    OutputError
        Something in it has no place in JSON, or would be refused when it is read: NaN, an infinity,
        an object, half a surrogate pair, a key that is no text, an integer of too many digits.
    """
    try:
        text = json.dumps(
            document, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        _check_readable(document)
        data = text.encode("utf-8") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"The document cannot be written as JSON: {error}.") from error
    if len(data) > MAX_BYTES:
        raise OutputError(
            f"A record of {len(data)} bytes is larger than the {MAX_BYTES} that are read again. "
            "Give the run fewer files or larger chunks (memory.chunk_bytes)."
        )
    return data


def parse_json(data: bytes, name: str, error: type[GmmDaskError] = OutputError) -> dict[str, Any]:
    """Read a JSON object strictly: no duplicate keys, no NaN, no number beyond float64.

    Parameters
    ----------
    data : bytes
    name : str
        What the message calls the file.
    error : type of error to raise
    """
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise error(f"{name} is nested too deeply to be one of our files.") from None
    except ValueError as cause:  # also not UTF-8 and not JSON
        raise error(f"{name} is damaged or not one of our files: {cause}.") from None
    if not isinstance(document, dict):
        raise error(f"{name} is not one of our files: it holds no JSON object.")
    return document


def check_format(
    document: dict[str, Any],
    name: str,
    format_name: str,
    version: int,
    error: type[GmmDaskError] = OutputError,
) -> None:
    """Refuse a document of another kind, or of a version newer than this package reads."""
    if document.get("format") != format_name:
        raise error(
            f"{name}: format is {literal(document.get('format'))}, expected {format_name!r}; "
            "it is another kind of file."
        )
    found = document.get("format_version")
    if type(found) is not int or found < 1:
        raise error(f"{name}: format_version is {literal(found)}; it must be a positive integer.")
    if found > version:
        raise error(
            f"{name}: format_version is {found}, newer than {version}, the newest that this "
            "gmm_dask reads: upgrade gmm_dask."
        )


def check_keys(
    document: Mapping[str, Any],
    name: str,
    known: Iterable[str],
    error: type[GmmDaskError] = OutputError,
) -> None:
    """Refuse a document with a key too many or too few."""
    known = set(known)
    unknown, absent = sorted(set(document) - known), sorted(known - set(document))
    if unknown:
        raise error(f"{name}: {literal(unknown[0])} is an unknown field; the file is foreign.")
    if absent:
        raise error(f"{name}: {absent[0]} is absent; the file is incomplete.")


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with a checksum of its other fields, so that damage shows in the file alone."""
    return document | {SEAL: sha256_hex(canonical_json(document))}


def unsealed(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The document without its checksum; raises OutputError where that does not fit."""
    body = {key: value for key, value in document.items() if key != SEAL}
    if document.get(SEAL) != sha256_hex(canonical_json(body)):
        raise OutputError(f"{name} is damaged: its checksum does not fit its content.")
    return body


def is_count(value: Any) -> bool:
    """Whether a JSON value is a non-negative integer of 64 bits (and not a boolean)."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def is_sha256(value: Any) -> bool:
    """Whether a JSON value is 64 lower-case hex digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_run_id(value: Any) -> bool:
    """Whether a JSON value is 16 lower-case hex digits: no path, and no text to print."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def utc_now() -> str:
    """The time now: UTC, ISO 8601 to the millisecond, with Z at the end."""
    return _in_utc(datetime.now(UTC))


def is_time(value: Any) -> bool:
    """Whether a JSON value is a time in the form of `utc_now`."""
    try:
        return isinstance(value, str) and _in_utc(datetime.fromisoformat(value)) == value
    except (ValueError, OverflowError):  # no time, or one that has no year in UTC
        return False


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hex digits."""
    return hashlib.sha256(data).hexdigest()


def literal(value: Any) -> str:
    """A value as a message shows it, shortened: what is damaged may be long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _in_utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check_readable(document: Any) -> None:
    """Raise ValueError for what json.dumps writes though it would not be read as what it was."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key is no text")
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(item for item in value if type(item) is not float)
        elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            raise ValueError(f"an integer has more than {MAX_DIGITS} digits")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the field {literal(key)} occurs twice")
        document[key] = value
    return document


def _finite(written: str) -> float:
    number = float(written)
    if not math.isfinite(number):
        raise ValueError(f"the number {literal(written)} is beyond float64")
    return number


def _integer(written: str) -> int:
    if len(written.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(written)} digits")
    return int(written)


def _refuse_constant(written: str) -> float:
    raise ValueError(f"{written} is not a number that JSON knows")
