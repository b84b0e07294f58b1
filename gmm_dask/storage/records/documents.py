"""JSON files of records: one canonical form to write, one strict way to read, and a checksum."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

from gmm_dask.errors import GmmDaskError, OutputError
from gmm_dask.storage.records.codec import SHA256, At, Kind, literal

MAX_BYTES = 512 << 20  # of any record; a larger file is not read, and not written
MAX_MARKS = 1 << 20  # brackets, colons, quotes: small in a file, large once they are objects
MAX_DIGITS = 30  # a time in nanoseconds has up to 29, for seconds of 64 bits

T = TypeVar("T")


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


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hex digits."""
    return hashlib.sha256(data).hexdigest()


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


def n_marks(data: bytes) -> int:
    """How many objects a JSON text may become, at most."""
    return sum(map(data.count, (b"[", b"{", b":", b'"')))


def _is_canonical(document: dict[str, Any], data: bytes) -> bool:
    try:
        return canonical_json(document) == data
    except OutputError:  # half a character, for one
        return False


class _Newer(Exception):  # noqa: N818
    """A file of a format that comes after this software: its text says so."""


@dataclass(frozen=True)
class Document(Generic[T]):
    """A file of one record.

    Parameters
    ----------
    kind : Kind
        Kind of the fields beside format, version and seal.
    format : str or None
        What kind of file it says that it is; None where it says nothing.
    version : int
        Version of the format; a newer one is refused.
    seal : str or None
        The field with the SHA-256 of all others, so that damage shows in the file alone.
    since : mapping of str to int
        Fields, the seal among them, that versions before that one do not have: they are null.
    error : type of error to raise
    max_bytes : int
    max_marks : int or None
        See n_marks.
    is_exact : bool
        Whether the same fields in another form are refused, too.
    remedy : str
        What is said after each refusal but that of a newer file, which is sound.
    """

    kind: Kind[T]
    format: str | None = None
    version: int = 1
    seal: str | None = "checksum"
    since: Mapping[str, int] = field(default_factory=dict)
    error: type[GmmDaskError] = OutputError
    max_bytes: int = MAX_BYTES
    max_marks: int | None = None
    is_exact: bool = False
    remedy: str = ""

    def document(self, one: T) -> dict[str, Any]:
        """The JSON object of a record."""
        head = {"format": self.format, "format_version": self.version}
        document = {**(head if self.format else {}), **self.kind.dump(one)}
        return document if self.seal is None else sealed(document, self.seal)

    def dump(self, one: T) -> bytes:
        """The content of the file: equal records give equal bytes, and what is written is read."""
        return canonical_json(self.document(one))

    def load(self, data: bytes, file: str) -> T:
        """The record in the content of a file.

        Parameters
        ----------
        data : bytes
        file : str
            What messages call it.

        Raises
        ------
        error
            Damaged, foreign or newer; file and field are named.
        """
        with self._remedied():
            if self.is_too_large(data):
                self._refuse_size(file, len(data))
            return self._load(data, file)

    def check_size(self, file: str, size: int) -> None:
        """Refuse a file for its size before it is read."""
        with self._remedied():
            if size > self.max_bytes:
                self._refuse_size(file, size)

    @contextmanager
    def _remedied(self) -> Iterator[None]:
        try:
            yield
        except _Newer as newer:
            raise self.error(str(newer)) from None
        except self.error as error:
            if not self.remedy:
                raise
            raise self.error(f"{error} {self.remedy}") from None

    def _load(self, data: bytes, file: str) -> T:
        document = parse_json(data, file, self.error)
        if self.is_exact and not _is_canonical(document, data):
            raise self.error(f"{file} is not as it was written: the same fields in another form.")
        if self.format is not None:
            self._check_format(document, file)
        version = document.get("format_version", self.version)
        if self.seal is not None and version >= self.since.get(self.seal, 1):
            self._check_seal(document, file)
        newer = (name for name, since in self.since.items() if since > version)
        body = dict.fromkeys(newer) | document
        for name in ("format", "format_version") if self.format else ():
            del body[name]
        body.pop(self.seal or "", None)
        return self.kind.load(body, At(file, self.error))

    def is_too_large(self, data: bytes) -> bool:
        """Whether it is more than any file of this kind, and is not even parsed."""
        if len(data) > self.max_bytes:
            return True
        return self.max_marks is not None and n_marks(data) > self.max_marks

    def _refuse_size(self, file: str, size: int) -> NoReturn:
        kind = str(self.format).rpartition(".")[2]
        raise self.error(f"{file} is larger, with its {size} bytes, than any {kind}.")

    def _check_format(self, document: dict[str, Any], file: str) -> None:
        """Refuse a document of another kind, or of a version newer than this package reads."""
        if document.get("format") != self.format:
            raise self.error(
                f"{file}: format is {literal(document.get('format'))}, expected {self.format!r}; "
                "it is another kind of file."
            )
        found = document.get("format_version")
        if type(found) is not int or found < 1:
            raise self.error(
                f"{file}: format_version is {literal(found)}; it must be a positive integer."
            )
        if found > self.version:
            raise _Newer(
                f"{file}: format_version is {found}, newer than {self.version}, the newest that "
                "this gmm_dask reads: upgrade gmm_dask."
            )

    def _check_seal(self, document: dict[str, Any], file: str) -> None:
        seal = str(self.seal)
        found = SHA256.of(document, seal, At(file, self.error))
        try:
            fits = found == sealed(document, seal)[seal]
        except OutputError as error:
            raise self.error(f"{file}: a field is no proper text or number: {error}") from error
        if not fits:
            raise self.error(
                f"{file} is damaged: its {seal} does not fit the content; a field was changed "
                "after it was written."
            )


def sealed(document: Mapping[str, Any], seal: str = "checksum") -> dict[str, Any]:
    """The document with a checksum of its other fields."""
    body = {key: value for key, value in document.items() if key != seal}
    return body | {seal: sha256_hex(canonical_json(body))}
