"""Typed fields out of a JSON document: each is as promised, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import ModelFileError
from gmm_dask.storage.documents import is_count, is_sha256, shown

MAX_TEXT = 1024  # characters of a name or a hash; a longer one is not ours


@dataclass(frozen=True)
class Fields:
    """The fields of one document.

    Parameters
    ----------
    document : mapping
    name : str
        What messages call the file.
    """

    document: Mapping[str, Any]
    name: str

    def refuse(self, field: str, why: str) -> NoReturn:
        """Raise ModelFileError naming file and field."""
        raise ModelFileError(f"{self.name}: {field} {why}. The file is damaged or foreign.")

    def text(self, field: str) -> str:
        """A string."""
        value = self.document[field]
        if not _is_text(value):
            self.refuse(field, f"is {shown(value)}, not a string of at most {MAX_TEXT} characters")
        return str(value)

    def word(self, field: str) -> str:
        """A string that is not empty."""
        return self.text(field) or self.refuse(field, "is empty")

    def sha256(self, field: str) -> str:
        """64 hex digits."""
        value = self.document[field]
        if not is_sha256(value):
            self.refuse(field, f"is {shown(value)}, not 64 hex digits")
        return str(value)

    def flag(self, field: str) -> bool:
        """True or false."""
        value = self.document[field]
        if not isinstance(value, bool):
            self.refuse(field, f"is {shown(value)}, not true or false")
        return value

    def count(self, field: str, least: int = 0) -> int:
        """An integer no smaller than `least`."""
        value = self.document[field]
        if not is_count(value) or value < least:
            self.refuse(field, f"is {shown(value)}, not an integer of at least {least}")
        return int(value)

    def size(self, field: str) -> float:
        """A finite number, not negative."""
        value = self.document[field]
        if not _is_number(value) or value < 0:
            self.refuse(field, f"is {shown(value)}, not a finite number of at least 0.0")
        return float(value)

    def texts(self, field: str, length: int) -> tuple[str, ...]:
        """A list of that many strings, none empty."""
        value = self.document[field]
        if not isinstance(value, list) or len(value) != length:
            self.refuse(field, f"is not a list of {length} strings")
        for item in value:
            if not _is_text(item) or not item:
                self.refuse(field, f"holds {shown(item)}, not a name")
        return tuple(value)

    def mapping(self, field: str) -> dict[str, str]:
        """Strings by strings."""
        value = self.document[field]
        if not isinstance(value, dict) or not all(map(_is_text, (*value, *value.values()))):
            self.refuse(field, f"is {shown(value)}, not strings by name")
        return dict(value)

    def array(self, field: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Nested lists of finite numbers of exactly that shape, checked before they are copied."""
        value = self.document[field]
        self._check_nested(field, value, shape)
        return np.array(value, dtype=np.float64).reshape(shape)

    def _check_nested(self, field: str, value: Any, shape: tuple[int, ...]) -> None:
        if not isinstance(value, list) or len(value) != shape[0]:
            found = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
            self.refuse(field, f"holds {found} where a list of {shape[0]} belongs")
        if len(shape) > 1:
            for item in value:
                self._check_nested(field, item, shape[1:])
            return
        for item in value:
            if not _is_number(item):
                self.refuse(
                    field, f"holds {shown(item)} where a finite number with a point belongs"
                )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)
