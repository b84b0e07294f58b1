"""Columns of lists of one length, such as embeddings: each element is a feature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import pyarrow as pa

from gmm_dask.kinds import element, element_of
from gmm_dask.storage.input.problems import Problems


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
    """The elements of a list are features together, in order, or none of them is.

    `setting` says where the features are named.
    """
    alike = {
        name: each
        for name, length in lengths.items()
        for i in range(length)
        if (each := element(name, i)) in columns
    }
    for name, other in alike.items():
        line = f"{setting}: the column {other!r} is named like an element of {name!r}. Rename one."
        problems.add("elements and columns of one name", line)
    slots = slots_of(features, lengths)
    times = Counter(slot.column for slot in slots)
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
