"""Values in memory as numbers, by the one rule for each kind: see `gmm_dask.kinds`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError, NotNumbersError
from gmm_dask.kinds import (
    INEXACT,
    TAKEN,
    Kind,
    inexact,
    is_exact,
    kind_of_class,
    kind_of_dtype,
    refusal,
)

MAX_SHOWN = 10**40  # of an integer in a message

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Headings:
    """How messages name columns.

    Parameters
    ----------
    within : str
        Where the columns are, such as "partition 3, ", for messages.
    names : sequence, optional
        Names of the columns; their numbers where not given.
    only : str, optional
        What is said in their place where there is but one.
    """

    within: str = ""
    names: Sequence[Any] | None = None
    only: str | None = None

    def column(self, j: int | None) -> str:
        """The name of column `j` in a message; None stands for all columns."""
        if self.only is not None:
            return self.only
        if j is None:
            return f"{self.within}every column"
        return f"{self.within}column {j if self.names is None else self.names[j]!r}"


def array_values(array: Values, headings: Headings) -> Values:
    """An array of NumPy as numbers, NaN where it is masked or an object is absent.

    Floats of 4 and 8 bytes and integers are the array itself where nothing is masked.

    Parameters
    ----------
    array : (n,), or (n, d)
    headings : Headings
        Names of the columns; where the array has one axis, of its only column.

    Raises
    ------
    NotNumbersError
        The values are no numbers, or integers that float64 would round.
    """
    masked = isinstance(array, np.ma.MaskedArray)
    plain = np.ma.getdata(array) if masked else array
    if plain.dtype.kind == "O":
        if masked:
            plain = plain.copy()
            plain[np.ma.getmaskarray(array)] = None
        return _of_objects(plain, headings)
    kind = kind_of_dtype(plain.dtype)
    if kind not in TAKEN:
        columns = None if plain.ndim == 2 and plain.shape[1] > 1 else 0
        raise NotNumbersError(refusal(headings.column(columns), f"is {plain.dtype}", kind))
    if masked:
        plain = np.where(np.ma.getmaskarray(array), plain.dtype.type(0), plain)
    wrong = inexact(plain)
    if wrong is not None:
        column = int(np.argwhere(plain == wrong)[0][-1])
        raise NotNumbersError(_rounded(headings.column(column), wrong))
    if plain.dtype == np.float16:
        plain = plain.astype(np.float64)
    return np.where(np.ma.getmaskarray(array), np.nan, plain) if masked else plain


def object_values(objects: Iterable[Any], where: str) -> Values:
    """Python objects (n,) as float64, NaN for those that are absent.

    Raises
    ------
    NotNumbersError
        One that is no number, or an integer that float64 would round.
    """
    values = list(objects)
    kinds = {cls: kind_of_class(cls) for cls in set(map(type, values))}
    for cls, kind in kinds.items():
        if kind not in TAKEN:
            row = next(i for i, value in enumerate(values) if type(value) is cls)
            raise NotNumbersError(_held(where, cls, kind, row))
    if "absent" in kinds.values():
        values = [np.nan if kinds[type(value)] == "absent" else value for value in values]
    integers = {cls for cls in kinds if issubclass(cls, int | np.integer)}
    if integers:
        wrong = [int(each) for each in values if type(each) in integers and not is_exact(int(each))]
        if wrong:
            raise NotNumbersError(_rounded(where, max(wrong, key=abs)))
    return np.array(values, dtype=np.float64)


def listed_values(rows: Sequence[Any], headings: Headings) -> Values:
    """Rows given one by one (n, d), each a sequence; raises as array_values does.

    Raises
    ------
    DataError
        Rows of several lengths, or whose values go by names in several orders.
    """
    names = {tuple(row.index) for row in rows if hasattr(row, "iloc")}
    if len(names) > 1:
        raise DataError(
            f"{headings.within}the rows have their values by name, in several orders or of several "
            "names. Make a DataFrame of them: pandas.DataFrame(rows)."
        )
    arrays = [isinstance(row, np.ndarray) and row.dtype.kind != "O" for row in rows]
    masked = any(isinstance(row, np.ma.MaskedArray) for row in rows)
    if all(arrays) and not masked and len({(row.dtype, row.shape) for row in rows}) == 1:
        return array_values(np.stack(rows), headings)
    lists = [row if isinstance(row, list | tuple) else list(array_of(row)) for row in rows]
    for i, row in enumerate(lists):
        if len(row) != len(lists[0]):
            raise DataError(
                f"row {i} has {len(row)} values, row 0 has {len(lists[0])}: give all as many."
            )
    flat = [value for row in lists for value in row]
    objects = np.fromiter(flat, dtype=object, count=len(flat))
    return array_values(objects.reshape(len(lists), len(lists[0])), headings)


def _of_objects(array: Values, headings: Headings) -> Values:
    if array.ndim == 1:
        return object_values(array, headings.column(0))
    if array.ndim != 2:
        what = headings.only or "X"
        raise DataError(f"{what} must be rows of numbers; it is an array of {array.ndim} axes.")
    columns = [object_values(array[:, j], headings.column(j)) for j in range(array.shape[1])]
    return np.column_stack(columns) if columns else np.empty(array.shape)


def array_of(row: Any) -> Any:
    """The row as an array; a masked array stays masked."""
    return row if isinstance(row, np.ma.MaskedArray) else np.asarray(row)


def _held(where: str, cls: type, kind: Kind, row: int) -> str:
    """The refusal of a Python object; what NumPy cannot take, in Python's words too."""
    what = f"holds a {cls.__name__} in row {row}"
    if kind in ("nested", "other"):
        what += f" (float() argument must be a string or a real number, not {cls.__name__!r})"
    return refusal(where, what, kind)


def _rounded(where: str, integer: int) -> str:
    shown = integer if abs(integer) < MAX_SHOWN else f"one of {integer.bit_length()} bits"
    return f"{where}: integers up to {shown}, beyond 2^53. {INEXACT}"
