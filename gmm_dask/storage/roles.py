"""What each column is for, as the settings ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pyarrow as pa

from gmm_dask.kinds import TAKEN, Kind

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
_ELEMENT = re.compile(r"(.+)\[(0|[1-9][0-9]{0,8})\]", re.DOTALL)


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

    def may_read(self, name: str, type_: pa.DataType) -> bool:
        """Whether a column of this type may be read at all."""
        if self.keep == "all" or name in self.carried:
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


def is_list(type_: pa.DataType) -> bool:
    """Whether each value is a list, which a vector has to be."""
    if isinstance(type_, pa.FixedShapeTensorType):
        return len(type_.shape) == 1
    return bool(
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def value_type(type_: pa.DataType) -> pa.DataType:
    """Of the elements where each value is a list; else the type itself."""
    return type_.value_type if is_list(type_) else type_


def element(column: str, index: int) -> str:
    """What the feature is called that is an element of a column of lists."""
    return f"{column}[{index}]"


def element_of(feature: str) -> tuple[str, int] | None:
    """The column of lists and the place in them that a name of that form stands for."""
    found = _ELEMENT.fullmatch(feature)
    return (found[1], int(found[2])) if found else None


def column_of(feature: str, columns: Container[str]) -> str:
    """The column that a feature is, or is an element of."""
    found = None if feature in columns else element_of(feature)
    return found[0] if found and found[0] in columns else feature


@dataclass(frozen=True)
class Place:
    """Where in a row of features the numbers of a column go.

    Parameters
    ----------
    column : str
    first : int
        Index of its first feature.
    length : int or None
        Of its lists, whose elements are features side by side; None where the column is a feature.
    """

    column: str
    first: int
    length: int | None = None

    @property
    def where(self) -> int | slice:
        """Index of its features."""
        return self.first if self.length is None else slice(self.first, self.first + self.length)

    def value_type(self, type_: pa.DataType) -> pa.DataType:
        """The type of the features where the column has this one."""
        return type_ if self.length is None else value_type(type_)


def places_of(features: Sequence[str], columns: Container[str]) -> list[Place]:
    """Where the columns that features are read from go, in order."""
    found: list[Place] = []
    for i, feature in enumerate(features):
        column, last = column_of(feature, columns), found[-1] if found else Place("", -1)
        if column == feature:
            found.append(Place(column, i))
        elif last.column == column and feature == element(column, last.length or 0):
            found[-1] = replace(last, length=(last.length or 0) + 1)
        else:
            found.append(Place(column, i, 1))
    return found


def has_nested_dictionary(type_: pa.DataType) -> bool:
    """Whether there is a dictionary somewhere inside of a list, a structure or a map."""
    if isinstance(type_, pa.BaseExtensionType):
        return has_nested_dictionary(type_.storage_type)
    if not pa.types.is_nested(type_):
        return False
    inner = [type_.field(i).type for i in range(type_.num_fields)]
    return any(pa.types.is_dictionary(each) or has_nested_dictionary(each) for each in inner)


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type that labels carry: writers differ in dictionaries and in large strings."""
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if pa.types.is_large_string(type_):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(type_) else type_
