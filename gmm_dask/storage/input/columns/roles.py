"""What each column is for, as the settings ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from gmm_dask.kinds import TAKEN, Kind, element_of
from gmm_dask.storage.input.columns.lists import value_type

Cast = Literal["decimal", "bool"]

_KINDS: tuple[tuple[Kind, Callable[[pa.DataType], bool]], ...] = (
    ("number", pa.types.is_integer),
    ("number", pa.types.is_floating),
    ("absent", pa.types.is_null),
    ("bool", pa.types.is_boolean),
    ("decimal", pa.types.is_decimal),
    ("duration", pa.types.is_duration),
    ("date", pa.types.is_temporal),
    ("category", pa.types.is_dictionary),
    ("text", pa.types.is_string),
    ("text", pa.types.is_large_string),
    ("text", pa.types.is_string_view),
    ("other", pa.types.is_run_end_encoded),
    ("nested", pa.types.is_nested),
)


@dataclass(frozen=True)
class Roles:
    """The columns that were asked for, by what they are for.

    Parameters
    ----------
    features : tuple of str or None
        Columns, or elements of columns of lists; None stands for all numeric columns without
        another role, or the one column of lists where there are none.
    id_columns : tuple of str
    weight_column : str or None
    keep : tuple of str or "all"
        Columns to carry through to the labels beside the ids.
    missing : {"error", "drop", "em"}
        Whether a null in a feature is a problem.
    cast : tuple of {"decimal", "bool"}
        Types that are taken for numbers.
    to_fit : bool
        Whether something is to be learnt of the rows: then there must be some, and values in each
        feature. A batch to score may be without.
    """

    features: tuple[str, ...] | None = None
    id_columns: tuple[str, ...] = ()
    weight_column: str | None = None
    keep: tuple[str, ...] | Literal["all"] = ()
    missing: Literal["error", "drop", "em"] = "error"
    cast: tuple[Cast, ...] = ()
    to_fit: bool = True

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns named for the labels, ids first, each once."""
        keep = () if isinstance(self.keep, str) else self.keep
        return tuple(dict.fromkeys((*self.id_columns, *keep)))

    def may_compute(self, name: str) -> bool:
        """Whether a column's values may enter the arithmetic: a feature or the weight."""
        if name == self.weight_column:
            return True
        return name not in self.id_columns if self._named is None else name in self._named

    @cached_property
    def _named(self) -> frozenset[str] | None:
        """Columns that the features may be, or be elements of."""
        if self.features is None:
            return None
        elements = (element_of(name) for name in self.features)
        return frozenset((*self.features, *(found[0] for found in elements if found)))

    def may_carry(self, name: str) -> bool:
        """Whether a column may go to the labels."""
        return self.keep == "all" or name in self.carried

    def may_read(self, name: str, type_: pa.DataType) -> bool:
        """Whether a column of this type may be read at all."""
        if self.may_carry(name):
            return True
        return self.may_compute(name) and self.is_number(value_type(type_))

    def is_number(self, type_: pa.DataType) -> bool:
        """Whether values of this type may be those of a feature or the weight."""
        return is_number(type_) or cast_of(type_) in self.cast

    def minds(self, kind: str, name: str) -> bool:
        """Whether an oddity of this kind in this column is a problem."""
        if not self.may_compute(name):
            return False
        if kind == "negative":
            return name == self.weight_column
        return kind != "null" or name == self.weight_column or self.missing == "error"


def kind_of(type_: pa.DataType) -> Kind:
    """What the values of an Arrow type are."""
    return next((kind for kind, is_one in _KINDS if is_one(type_)), "other")


def types_of(schema: pa.Schema) -> tuple[tuple[str, pa.DataType], ...]:
    """Names and types of columns; of what is only stored as a number, not that of the number.

    Categories of numbers are categories by the note of pandas. What has a type of somebody else's
    is no number: who has not imported pandas has no word for its periods.
    """
    categories = [
        each.get("field_name", each.get("name"))
        for each in pandas_note(schema, "columns")
        if isinstance(each, dict) and each.get("pandas_type") == "categorical"
    ]
    return tuple((field.name, _type_of(field, field.name in categories)) for field in schema)


def pandas_note(schema: pa.Schema, word: str) -> list[Any]:
    """What pandas notes in a schema under this word."""
    try:
        found = json.loads((schema.metadata or {})[b"pandas"])[word]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []  # not written by pandas, or by one that notes this in another way
    return found if isinstance(found, list) else []


def _type_of(field: pa.Field, is_category: bool) -> pa.DataType:
    name = (field.metadata or {}).get(b"ARROW:extension:name")
    if name is not None and not isinstance(field.type, pa.BaseExtensionType):
        return pa.opaque(field.type, name.decode(errors="replace"), "unknown")
    if is_category and kind_of(field.type) == "number":
        return pa.dictionary(pa.int32(), field.type)
    return field.type


def is_number(type_: pa.DataType) -> bool:
    """Whether a type can be a feature; a column of nothing but nulls may be one, too."""
    return kind_of(type_) in TAKEN


def cast_of(type_: pa.DataType) -> Cast | None:
    """The word that asks to take this type for a number; None where there is none."""
    kind = kind_of(type_)
    return kind if kind in ("decimal", "bool") else None


def number_type(type_: pa.DataType) -> pa.DataType:
    """The type whose values a column has once it is taken for numbers."""
    return {"decimal": pa.float64(), "bool": pa.uint8(), None: type_}[cast_of(type_)]
