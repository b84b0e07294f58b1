"""Columns of lists of one length, such as embeddings: each element is a feature."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa

from gmm_dask.kinds import TAKEN, Kind, element, element_of
from gmm_dask.storage.input.inputs import Problems


def is_list(type_: pa.DataType) -> bool:
    """Whether the values of a type are lists, as those of a column of vectors must be."""
    if isinstance(type_, pa.FixedShapeTensorType):
        return len(type_.shape) == 1
    return bool(
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def value_type(type_: pa.DataType) -> pa.DataType:
    """Type of the elements where each value is a list; else the type itself."""
    return type_.value_type if is_list(type_) else type_


def column_of(feature: str, columns: Container[str]) -> str:
    """The column that a feature is, or is an element of."""
    found = None if feature in columns else element_of(feature)
    return found[0] if found and found[0] in columns else feature


@dataclass(frozen=True)
class Slot:
    """Where in a row of features the numbers of a column go.

    Parameters
    ----------
    column : str
    first : int
        Index of its first feature.
    length : int or None
        Length of the column's lists, whose elements are features side by side; None where the
        column is a feature.
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


def slots_of(features: Sequence[str], columns: Container[str]) -> list[Slot]:
    """Where the columns that features are read from go, in order."""
    found: list[Slot] = []
    for i, feature in enumerate(features):
        column, last = column_of(feature, columns), found[-1] if found else Slot("", -1)
        if column == feature:
            found.append(Slot(column, i))
        elif last.column == column and feature == element(column, last.length or 0):
            found[-1] = replace(last, length=(last.length or 0) + 1)
        else:
            found.append(Slot(column, i, 1))
    return found


class Length(NamedTuple):
    """Length of a column's lists in one file, as far as its footer tells.

    Parameters
    ----------
    value : int or None
        None where they have several, or nothing is known.
    is_sure : bool
        False where missing values, of which a footer tells little, may hide it.
    """

    value: int | None
    is_sure: bool


class HasLengths(Protocol):
    """A file, as far as lists go: see Footer."""

    @property
    def name(self) -> str:
        """Name of the file."""

    @property
    def lengths(self) -> Mapping[str, Length]:
        """Length of its lists, by column."""


def common_length(
    column: str, files: Iterable[HasLengths], features: Sequence[str], problems: Problems
) -> int:
    """Length of a column's lists; 0 and a problem where they have not all the same one.

    Where no footer is sure of it, features that are named one by one say how many there are.
    """
    known = [(file.lengths[column], file.name) for file in files if column in file.lengths]
    sure = dict(reversed([(length.value, name) for length, name in known if length.is_sure]))
    if len(sure) > 1 or None in sure:
        _tell_lengths(column, sure, problems)
        return 0
    slots = slots_of(features, (column,))
    named = [slot.length for slot in slots if slot.column == column and slot.length]
    lengths = {*sure} or {*named[:1]} or {length.value for length, _ in known}
    if len(lengths) == 1 and (length := lengths.pop()):
        return length
    if known:
        _tell_lengths(column, {None: known[0][1]}, problems)
    return 0


def _tell_lengths(column: str, found: Mapping[int | None, str], problems: Problems) -> None:
    if None in found:
        line = (
            f"{found[None]}, column {column!r}: its lists have different lengths, or "
            "missing values hide their length. Give them one, and write them as lists of fixed "
            "size."
        )
        problems.add("lists of no one length", line)
        return
    (other, another), (length, first) = list(found.items())[-2:]
    line = (
        f"{another}, column {column!r}: has lists of {other} values, but {length} in "
        f"{first}. Give all lists one length."
    )
    problems.add("lists of other lengths", line)


def expanded(named: Iterable[str], lengths: Mapping[str, int]) -> Iterator[str]:
    """The features, each element of a list being one."""
    for name in named:
        if name in lengths:
            yield from (element(name, i) for i in range(lengths[name]))
        else:
            yield name


def check_elements(
    features: Sequence[str],
    lengths: Mapping[str, int],
    columns: Container[str],
    setting: str,
    problems: Problems,
) -> None:
    """Report lists of which some elements, but not all in their order, are features.

    `setting` says where the features are named.
    """
    slots = slots_of(features, lengths)
    times = Counter(slot.column for slot in slots)
    alike = {
        name: each
        for name, length in lengths.items()
        for i in range(length)
        if (each := element(name, i)) in columns
    }
    for name, other in alike.items():
        line = f"{setting}: the column {other!r} is named like an element of {name!r}. Rename one."
        problems.add("elements and columns of one name", line)
    for slot in slots:
        name, length = slot.column, lengths.get(slot.column)
        if name in alike:
            continue
        if length and (slot.length != length or times[name] > 1):
            line = (
                f"{setting}: the lists of {name!r} have {length} values, and the features are not "
                "all of them, in order. Name the column for all of them, or give lists as long as "
                "those of the model."
            )
            problems.add("elements of lists", line)


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
class Selection:
    """The columns that were asked for, by their roles.

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
        Whether a model is to be fitted: then there must be rows, and each feature must have values.
        A batch to score may have neither.
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
        """Whether values of this kind, such as nulls, are a problem in this column."""
        if not self.may_compute(name):
            return False
        if kind == "negative":
            return name == self.weight_column
        return kind != "null" or name == self.weight_column or self.missing == "error"


def kind_of(type_: pa.DataType) -> Kind:
    """What the values of an Arrow type are."""
    return next((kind for kind, is_one in _KINDS if is_one(type_)), "other")


def types_of(schema: pa.Schema) -> tuple[tuple[str, pa.DataType], ...]:
    """Names and types of columns; what is only stored as a number has another type.

    A category whose values are numbers is told by the note of pandas. An extension type that is
    not registered is opaque and so no number: without pandas imported, Arrow would give the
    integers of its periods.
    """
    categories = [
        each.get("field_name", each.get("name"))
        for each in pandas_note(schema, "columns")
        if isinstance(each, dict) and each.get("pandas_type") == "categorical"
    ]
    return tuple((field.name, _type_of(field, field.name in categories)) for field in schema)


def pandas_note(schema: pa.Schema, word: str) -> list[Any]:
    """The list that pandas notes in a schema under a key; empty where there is none."""
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
    """The value of `data.cast` that takes this type for a number; None where there is none."""
    kind = kind_of(type_)
    return kind if kind in ("decimal", "bool") else None


def number_type(type_: pa.DataType) -> pa.DataType:
    """The type of a column after `data.cast` has taken its values for numbers."""
    return {"decimal": pa.float64(), "bool": pa.uint8(), None: type_}[cast_of(type_)]
