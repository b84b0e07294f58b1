"""Typed fields out of a JSON document: each is as promised, or refused by name."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import GmmDaskError, ModelFileError
from gmm_dask.storage.records.documents import (
    check_keys,
    is_count,
    is_run_id,
    is_sha256,
    is_time,
    literal,
)

MAX_TEXT = 1024  # characters of a name or a hash; a longer one is not ours
MAX_PLACE = 1 << 16  # characters of the name of a file


@dataclass(frozen=True)
class Fields:
    """The fields of one document.

    Parameters
    ----------
    document : mapping
    name : str
        What messages call the file.
    error : type of error to raise
    within : str
        Where in the file they are, as messages put it before the field.
    """

    document: Mapping[str, Any]
    name: str
    error: type[GmmDaskError] = ModelFileError
    within: str = ""

    def refuse(self, field: str, why: str) -> NoReturn:
        """Raise the error, naming file and field."""
        message = f"{self.name}: {self.within}{field} {why}. The file is damaged or foreign."
        raise self.error(message)

    def value(self, field: str) -> Any:
        """What the field holds, unchecked."""
        if field not in self.document:
            self.refuse(field, "is absent")
        return self.document[field]

    def inner(self, field: str, keys: Iterable[str] | None = None) -> Fields:
        """The fields of a document inside; it has these and no others, where they are given."""
        return self._inside(self.value(field), field, keys)

    def inners(self, field: str, keys: Iterable[str] | None = None) -> list[Fields]:
        """As `inner`, of each document in a list."""
        value, keys = self.value(field), None if keys is None else tuple(keys)
        if not isinstance(value, list):
            self.refuse(field, f"is {literal(value)}, not a list")
        return [self._inside(item, f"{field}[{i}]", keys) for i, item in enumerate(value)]

    def named(self, field: str) -> dict[str, Fields]:
        """The fields of each document in a document, by name."""
        inner = self.inner(field)
        return {name: inner.inner(name) for name in inner.document}

    def _inside(self, value: Any, field: str, keys: Iterable[str] | None) -> Fields:
        if not isinstance(value, dict):
            self.refuse(field, f"is {literal(value)}, not a document")
        if keys is not None:
            check_keys(value, f"{self.name}: {self.within}{field}", keys, self.error)
        return Fields(value, self.name, self.error, f"{self.within}{field}.")

    def text(self, field: str, longest: int = MAX_TEXT) -> str:
        """A string."""
        value = self.value(field)
        if not isinstance(value, str) or len(value) > longest:
            self.refuse(field, f"is {literal(value)}, not a string of at most {longest} characters")
        return value

    def place(self, field: str) -> str:
        """The name of a file, which may be as long as systems allow."""
        return self.text(field, MAX_PLACE)

    def word(self, field: str) -> str:
        """A string that is not empty."""
        return self.text(field) or self.refuse(field, "is empty")

    def sha256(self, field: str) -> str:
        """64 hex digits."""
        value = self.value(field)
        if not is_sha256(value):
            self.refuse(field, f"is {literal(value)}, not 64 hex digits")
        return str(value)

    def run_id(self, field: str) -> str:
        """16 hex digits, as `gmm_dask.storage.store.runs.run_id` makes them."""
        value = self.value(field)
        if not is_run_id(value):
            self.refuse(field, f"is {literal(value)}, not 16 hex digits")
        return str(value)

    def time(self, field: str) -> str | None:
        """A time in UTC, or null where none is known."""
        value = self.value(field)
        if value is not None and not is_time(value):
            self.refuse(field, f"is {literal(value)}, not a time")
        return value if value is None else str(value)

    def flag(self, field: str) -> bool:
        """True or false."""
        value = self.value(field)
        if not isinstance(value, bool):
            self.refuse(field, f"is {literal(value)}, not true or false")
        return value

    def count(self, field: str, least: int = 0) -> int:
        """An integer no smaller than `least`."""
        value = self.value(field)
        if not is_count(value) or value < least:
            self.refuse(field, f"is {literal(value)}, not an integer of at least {least}")
        return int(value)

    def integer(self, field: str) -> int:
        """An integer of any sign, such as a time."""
        value = self.value(field)
        if type(value) is not int:
            self.refuse(field, f"is {literal(value)}, not an integer")
        return value

    def size(self, field: str) -> float:
        """A finite number, not negative."""
        value = self.value(field)
        if not _is_number(value) or value < 0:
            self.refuse(field, f"is {literal(value)}, not a finite number of at least 0.0")
        return float(value)

    def number(self, field: str) -> float:
        """A finite number."""
        value = self.value(field)
        if not _is_number(value):
            self.refuse(field, f"is {literal(value)}, not a finite number with a point")
        return float(value)

    def texts(self, field: str, length: int) -> tuple[str, ...]:
        """A list of that many strings, none empty."""
        value = self.value(field)
        if not isinstance(value, list) or len(value) != length:
            self.refuse(field, f"is not a list of {length} strings")
        for item in value:
            if not _is_text(item) or not item:
                self.refuse(field, f"holds {literal(item)}, not a name")
        return tuple(value)

    def counts(self, field: str) -> tuple[int, ...]:
        """A list of non-negative integers."""
        value = self.value(field)
        if not isinstance(value, list) or not all(map(is_count, value)):
            self.refuse(field, f"is {literal(value)}, not a list of counts")
        return tuple(value)

    def mapping(self, field: str) -> dict[str, str]:
        """Strings by strings."""
        value = self.value(field)
        if not isinstance(value, dict) or not all(map(_is_text, (*value, *value.values()))):
            self.refuse(field, f"is {literal(value)}, not strings by name")
        return dict(value)

    def array(self, field: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Nested lists of finite numbers of exactly that shape, checked before they are copied."""
        value = self.value(field)
        self._check_nested(field, value, shape)
        return np.array(value, dtype=np.float64).reshape(shape)

    def packed(
        self, field: str, shape: tuple[int, ...], dtype: str = "float64", *, nan: bool = False
    ) -> npt.NDArray[Any]:
        """Finite numbers written by `packed`, of exactly that shape; NaN where it may be."""
        value, bits = self.value(field), np.dtype(dtype).newbyteorder("<")
        size = math.prod(shape) * bits.itemsize
        if not isinstance(value, str) or len(value) != 4 * -(-size // 3):
            what = f"{len(value)} characters" if isinstance(value, str) else literal(value)
            self.refuse(field, f"holds {what} where {math.prod(shape)} packed numbers belong")
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            self.refuse(field, "is not packed as base64")
        if len(raw) != size:
            self.refuse(field, f"holds {len(raw)} bytes where {size} belong")
        found: npt.NDArray[Any] = np.frombuffer(raw, bits).astype(dtype).reshape(shape)
        if np.isinf(found).any() or (not nan and np.isnan(found).any()):
            self.refuse(field, "holds a number that is not finite")
        return found

    def packed_list(self, field: str, n: int, length: int) -> tuple[npt.NDArray[Any], ...]:
        """A list of n vectors written by `packed`, each of that length."""
        value = self.value(field)
        if not isinstance(value, list) or len(value) != n:
            self.refuse(field, f"is not a list of {n} packed vectors")
        items = {f"{field}[{i}]": item for i, item in enumerate(value)}
        each = Fields(items, self.name, self.error, self.within)
        return tuple(each.packed(name, (length,)) for name in items)

    def _check_nested(self, field: str, value: Any, shape: tuple[int, ...]) -> None:
        if not isinstance(value, list) or len(value) != shape[0]:
            found = f"a list of {len(value)}" if isinstance(value, list) else literal(value)
            self.refuse(field, f"holds {found} where a list of {shape[0]} belongs")
        if len(shape) > 1:
            for item in value:
                self._check_nested(field, item, shape[1:])
            return
        for item in value:
            if not _is_number(item):
                self.refuse(
                    field, f"holds {literal(item)} where a finite number with a point belongs"
                )


def packed(array: npt.NDArray[Any]) -> str:
    """The numbers of an array, bit for bit and half as long as digits: base64, little-endian."""
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(raw.tobytes()).decode("ascii")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)
