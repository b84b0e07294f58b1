"""Rows counted by the value of a kept column and by label, where the column is a category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.storage.arrow import to_numpy
from gmm_dask.storage.records.codec import MAX_TEXT

MAX_VALUES = 30  # of a category, a missing value among them; a column of more is none
FIRST_LOOK = 1 << 12  # rows, in which a column of keys shows itself
AT_ONCE = (
    1 << 16
)  # rows after them that are looked at together: their numbers stay in a processor's cache


@dataclass(frozen=True)
class ValueCounts:
    """The rows of one value.

    Parameters
    ----------
    value : str or None
        As text; None for rows without a value.
    counts : tuple of k + 1 int
        Rows by label, those with the label -1 last.
    """

    value: str | None
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CrossTables:
    """Kept columns against labels; they add up.

    Parameters
    ----------
    columns : mapping of str to tuple of ValueCounts or None
        By name of the column, in the order of the values. None for a column that is no category:
        its values are of another type, too long or more than MAX_VALUES in any of the rows.
    """

    columns: Mapping[str, tuple[ValueCounts, ...] | None]

    @classmethod
    def of(cls, kept: pa.Table, labels: npt.NDArray[np.int32], n_components: int) -> CrossTables:
        """The cross-tables of n rows, made of their kept columns and their labels, (n,)."""
        at = np.where(labels < 0, np.int32(n_components), labels)
        pairs = zip(kept.column_names, kept.columns, strict=True)
        return cls({name: _counted(column, at, n_components + 1) for name, column in pairs})

    def __add__(self, other: CrossTables) -> CrossTables:
        return CrossTables(
            {name: _added(found, other.columns[name]) for name, found in self.columns.items()}
        )


NO_TABLES = CrossTables({})


def _is_category(type_: pa.DataType) -> bool:
    """Whether values of the type can name a category: text, booleans or integers."""
    if pa.types.is_dictionary(type_):
        return _is_category(type_.value_type)
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    return pa.types.is_integer(type_) or any(test(type_) for test in tests)


def _counted(
    column: pa.ChunkedArray, labels: npt.NDArray[np.int32], n_labels: int
) -> tuple[ValueCounts, ...] | None:
    found: tuple[ValueCounts, ...] | None = ()
    if not _is_category(column.type):
        return None
    first, step = 0, FIRST_LOOK
    while found is not None and first < len(column):
        for block in column.slice(first, step).chunks:
            here = labels[first : first + len(block)]
            found = _added(found, _of_block(block, here, n_labels))
            first += len(block)
        step = AT_ONCE
    return found


def _of_block(
    block: pa.Array, labels: npt.NDArray[np.int32], n_labels: int
) -> tuple[ValueCounts, ...] | None:
    if pa.types.is_dictionary(block.type):  # its dictionary may hold values that no row has
        block = block.dictionary_decode()
    encoded = block.dictionary_encode(null_encoding="encode")
    if len(encoded.dictionary) > MAX_VALUES:
        return None
    try:
        values = encoded.dictionary.cast(pa.string()).to_pylist()
    except UnicodeDecodeError:  # Parquet does not forbid bytes that are no text
        return None
    if any(value is not None and len(value) > MAX_TEXT for value in values):
        return None
    at = to_numpy(encoded.indices) * np.int64(n_labels) + labels
    table = np.bincount(at, minlength=len(values) * n_labels).reshape(-1, n_labels)
    pairs = zip(values, table.tolist(), strict=True)
    return _in_order({value: tuple(counts) for value, counts in pairs})


def _added(
    one: tuple[ValueCounts, ...] | None, other: tuple[ValueCounts, ...] | None
) -> tuple[ValueCounts, ...] | None:
    """The rows of both; None where that is too many values, or either has too many."""
    if one is None or other is None:
        return None
    sums = {each.value: each.counts for each in one}
    for each in other:
        before = sums.get(each.value, (0,) * len(each.counts))
        sums[each.value] = tuple(a + b for a, b in zip(before, each.counts, strict=True))
    return None if len(sums) > MAX_VALUES else _in_order(sums)


def _in_order(counts: Mapping[str | None, tuple[int, ...]]) -> tuple[ValueCounts, ...]:
    """By value, the missing one last: in whatever order rows come, the sum is the same."""
    order = sorted(counts, key=lambda value: (value is None, value or ""))
    return tuple(ValueCounts(value, counts[value]) for value in order)
