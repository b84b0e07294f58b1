"""Records as JSON values: one schema writes a record and reads it strictly.

A record is a frozen dataclass whose annotations say what each field may hold (`Sha256`, `Size`,
`Time | None`, another record). `record` makes a kind of it: `dump` gives the JSON value, `load`
gives the record, or refuses the value by file and field. Files of records are in `documents`.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    NamedTuple,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import GmmDaskError, OutputError

MAX_TEXT = 1024  # characters of a name or a hash; a longer one is not ours
MAX_PLACE = 1 << 16  # characters of the name of a file, which may be as long as systems allow
MAX_COUNT = 2**63 - 1

T = TypeVar("T")
Clock = Callable[[], str]  # tells the time as `utc_now` does
Array = npt.NDArray[Any]


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


def literal(value: Any) -> str:
    """A value as a message shows it, shortened: what is damaged may be long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _in_utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class At(NamedTuple):
    """Where in a file a value stands, as the error that refuses the value says.

    Parameters
    ----------
    file : str
    error : type of error to raise
    field : str
        Place of the field, such as `files[3].size`; empty for the whole document.
    """

    file: str
    error: type[GmmDaskError] = OutputError
    field: str = ""

    def inside(self, key: str | int) -> At:
        """The place of a field or an item of the value."""
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.field else key
        return At(self.file, self.error, self.field + step)

    def refuse(self, why: str, field: str = "") -> NoReturn:
        """Raise the error, naming file and field."""
        at = self.inside(field) if field else self
        raise self.error(f"{at.file}: {at.field} {why}. The file is damaged or foreign.")


def as_it_is(value: Any) -> Any:
    """The value itself: JSON has it."""
    return value


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of JSON value: how it is read strictly, and how it is written.

    Parameters
    ----------
    load : callable
        Makes the value of a JSON value and its place; raises the error of the place.
    dump : callable
        Makes the JSON value of a value.
    """

    load: Callable[[Any, At], T]
    dump: Callable[[Any], Any] = as_it_is

    def of(self, document: Any, name: str, at: At) -> T:
        """The field of that name in a document."""
        if not isinstance(document, dict):
            at.refuse(f"is {literal(document)}, not a document")
        if name not in document:
            at.refuse("is absent", name)
        return self.load(document[name], at.inside(name))


def only(
    is_one: Callable[[Any], bool], what: str, dump: Callable[[Any], Any] = as_it_is
) -> Kind[Any]:
    """The kind of JSON values that pass a test; `what` says what they are."""

    def load(value: Any, at: At) -> Any:
        if not is_one(value):
            at.refuse(f"is {literal(value)}, not {what}")
        return value

    return Kind(load, dump)


def _is_text(longest: int, least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and least <= len(value) <= longest


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def count_from(least: int) -> Kind[int]:
    """Integers of 64 bits that are no smaller than `least`."""
    return only(lambda value: is_count(value) and value >= least, f"an integer of at least {least}")


def text_of(longest: int) -> Kind[str]:
    """Strings of at most so many characters."""
    return only(_is_text(longest), f"a string of at most {longest} characters")


TEXT: Kind[str] = text_of(MAX_TEXT)
PLACE: Kind[str] = text_of(MAX_PLACE)
NAME: Kind[str] = only(_is_text(MAX_TEXT, 1), f"a name of 1 to {MAX_TEXT} characters")
RUN_ID: Kind[str] = only(is_run_id, "16 hex digits")
SHA256: Kind[str] = only(is_sha256, "64 hex digits")
TIME: Kind[str] = only(is_time, "a time in UTC to the millisecond")
FLAG: Kind[bool] = only(lambda value: isinstance(value, bool), "true or false")
COUNT: Kind[int] = count_from(0)
INTEGER: Kind[int] = only(lambda value: type(value) is int, "an integer")
NUMBER: Kind[float] = only(_is_number, "a finite number with a point", float)
SIZE: Kind[float] = only(
    lambda value: _is_number(value) and value >= 0, "a finite number of at least 0.0", float
)
ANY: Kind[Any] = only(lambda value: True, "anything")

Place = Annotated[str, PLACE]
Name = Annotated[str, NAME]
RunId = Annotated[str, RUN_ID]
Sha256 = Annotated[str, SHA256]
Time = Annotated[str, TIME]
Integer = Annotated[int, INTEGER]  # of any sign; a plain int is a count
Positive = Annotated[int, count_from(1)]
Size = Annotated[float, SIZE]

_PLAIN: dict[Any, Kind[Any]] = {str: TEXT, bool: FLAG, int: COUNT, float: NUMBER}


def kind_of(annotation: Any) -> Kind[Any]:
    """The kind of values that an annotation stands for."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next(each for each in arguments[1:] if isinstance(each, Kind))
    if origin in (Union, UnionType):
        several = [kind_of(each) for each in arguments if each is not type(None)]
        kind = several[0] if len(several) == 1 else any_of(*several)
        return optional(kind) if type(None) in arguments else kind
    if origin is tuple:
        return list_of(kind_of(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return by_name(kind_of(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return one_of(annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return record(annotation)
    return _PLAIN[annotation]


def record(cls: type[T], fixed: Mapping[str, Any] | None = None, **kinds: Kind[Any]) -> Kind[T]:
    """A document with the fields of a dataclass and no others.

    Parameters
    ----------
    cls : dataclass
    fixed : mapping of str to value, optional
        Fields that are not in the document, and what they are once it is loaded.
    **kinds : Kind
        Kinds of the fields whose annotations do not say them.
    """
    hints, left_out = get_type_hints(cls, include_extras=True), dict(fixed or {})
    names = [each.name for each in fields(cls) if each.name not in left_out]  # type: ignore[arg-type]
    inner = shape({name: kinds.get(name) or kind_of(hints[name]) for name in names})
    return Kind(
        lambda value, at: cls(**inner.load(value, at), **left_out),
        lambda one: inner.dump(vars(one)),
    )


def shape(
    kinds: Mapping[str, Kind[Any]],
    optional_kinds: Mapping[str, Kind[Any]] | None = None,
    *,
    strict: bool = True,
) -> Kind[dict[str, Any]]:
    """A document of these fields; of others, where it is not strict, nothing is said or loaded.

    Parameters
    ----------
    kinds : mapping of str to Kind
        Kinds of the fields that must be there.
    optional_kinds : mapping of str to Kind, optional
        Kinds of the fields that may be there.
    """
    known = {**kinds, **(optional_kinds or {})}

    def load(value: Any, at: At) -> dict[str, Any]:
        if not isinstance(value, dict):
            at.refuse(f"is {literal(value)}, not a document")
        if strict and not value.keys() <= known.keys():
            where = f"{at.file}: {at.field}: " if at.field else f"{at.file}: "
            unknown = literal(min(value.keys() - known.keys()))
            raise at.error(f"{where}{unknown} is an unknown field; the file is foreign.")
        wanted = (name for name in known if name in value or name in kinds)
        return {name: known[name].of(value, name, at) for name in wanted}

    def dump(document: Mapping[str, Any]) -> dict[str, Any]:
        return {name: kind.dump(document[name]) for name, kind in known.items() if name in document}

    return Kind(load, dump)


def part(**kinds: Kind[Any]) -> Kind[dict[str, Any]]:
    """A document with at least these fields; other fields are ignored."""
    return shape(kinds, strict=False)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """Null, or a value of the kind."""
    return Kind(
        lambda value, at: None if value is None else kind.load(value, at),
        lambda value: None if value is None else kind.dump(value),
    )


def any_of(*kinds: Kind[Any]) -> Kind[Any]:
    """A value of the first of the kinds that admits it; JSON has them all as they are."""

    def load(value: Any, at: At) -> Any:
        for kind in kinds[:-1]:
            with suppress(at.error):
                return kind.load(value, at)
        return kinds[-1].load(value, at)

    return Kind(load)


def list_of(kind: Kind[T], length: int | None = None) -> Kind[tuple[T, ...]]:
    """A list of values of the kind, of that length where one is given."""

    def load(value: Any, at: At) -> tuple[T, ...]:
        _check_list(value, length, at)
        return tuple(kind.load(item, at.inside(i)) for i, item in enumerate(value))

    return Kind(load, lambda values: [kind.dump(value) for value in values])


def by_name(kind: Kind[T]) -> Kind[dict[str, T]]:
    """Values of the kind by names."""

    def load(value: Any, at: At) -> dict[str, T]:
        if not isinstance(value, dict):
            at.refuse(f"is {literal(value)}, not a document")
        if not all(map(_is_text(MAX_PLACE), value)):
            at.refuse("has a name that is too long")
        return {name: kind.load(each, at.inside(name)) for name, each in value.items()}

    return Kind(load, lambda values: {name: kind.dump(each) for name, each in values.items()})


def one_of(words: type[T]) -> Kind[T]:
    """A word of an enumeration."""
    known = {str(each): each for each in words}  # type: ignore[attr-defined]

    def load(value: Any, at: At) -> T:
        if not isinstance(value, str) or value not in known:
            at.refuse(f"is {literal(value)}, none of {', '.join(known)}")
        found: T = known[value]
        return found

    return Kind(load, str)


def numbers(*shape: int) -> Kind[npt.NDArray[np.float64]]:
    """Nested lists of finite numbers, exactly of that shape, which is checked before a copy."""

    def load(value: Any, at: At) -> npt.NDArray[np.float64]:
        _check_numbers(value, shape, at)
        return np.array(value, dtype=np.float64).reshape(shape)

    return Kind(load, lambda array: array.tolist())


def packed(*shape: int, dtype: str = "float64", nan: bool = False) -> Kind[Array]:
    """Finite numbers of that shape, bit for bit and half as long as digits: base64, little-endian.

    `nan` says whether NaN may be among them.
    """
    bits = np.dtype(dtype).newbyteorder("<")
    n_values = math.prod(shape)

    def load(value: Any, at: At) -> Array:
        if not isinstance(value, str) or len(value) != 4 * -(-n_values * bits.itemsize // 3):
            what = f"{len(value)} characters" if isinstance(value, str) else literal(value)
            at.refuse(f"holds {what} where {n_values} packed numbers belong")
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            at.refuse("is not packed as base64")
        if len(raw) != n_values * bits.itemsize:
            at.refuse(f"holds {len(raw)} bytes where {n_values * bits.itemsize} belong")
        found: Array = np.frombuffer(raw, bits).astype(dtype).reshape(shape)
        if np.isinf(found).any() or (not nan and np.isnan(found).any()):
            at.refuse("holds a number that is not finite")
        return found

    def dump(array: Array) -> str:
        return base64.b64encode(np.ascontiguousarray(array, bits).tobytes()).decode("ascii")

    return Kind(load, dump)


def _check_list(value: Any, length: int | None, at: At) -> None:
    if not isinstance(value, list):
        at.refuse(f"is {literal(value)}, not a list")
    if length is not None and len(value) != length:
        at.refuse(f"holds a list of {len(value)} where a list of {length} belongs")


def _check_numbers(value: Any, shape: tuple[int, ...], at: At) -> None:
    _check_list(value, shape[0], at)
    for item in value:
        if len(shape) > 1:
            _check_numbers(item, shape[1:], at)
        elif not _is_number(item):
            at.refuse(f"holds {literal(item)} where a finite number with a point belongs")
