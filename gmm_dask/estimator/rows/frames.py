"""Columns and frames of pandas and Arrow as numbers; what others have comes as one of Arrow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from gmm_dask.errors import DataError, NotNumbersError
from gmm_dask.estimator.rows.values import (
    Headings,
    Values,
    array_of,
    array_values,
    listed_values,
    object_values,
)
from gmm_dask.kinds import TAKEN, Kind, element, kind_of_class, kind_of_dtype, refusal

NO_VALUE = "begins with a list of no values. Give all lists one length, or leave the column out."
Lengths = Mapping[Any, int]  # of the lists of a column, by its name


class Numbers(NamedTuple):
    """Rows as numbers.

    Parameters
    ----------
    values : (n, d)
    names : tuple or None
        Names of the columns, where they have names; each element of a column of lists has its own.
    """

    values: Values
    names: tuple[Any, ...] | None


def column_values(column: Any, where: str) -> Values:
    """One column in any form in memory, (n,), as numbers; raises NotNumbersError."""
    if hasattr(column, "iloc"):
        if np.ndim(column) == 1:
            return series_values(column, where)
        return array_values(np.asarray(column), Headings(only=where))
    if is_of_arrow(column):
        column = of_arrow("chunked_array", column, where)
        return arrow_values(column, column.type, where)
    if isinstance(column, list | tuple):
        return object_values(column, where)
    return array_values(array_of(column), Headings(only=where))


def frame_values(frame: Any, within: str = "", lengths: Lengths | None = None) -> Numbers:
    """A pandas DataFrame as numbers.

    Parameters
    ----------
    within : str
        Where it is, for messages.
    lengths : mapping, optional
        Length of the lists of each column of lists, where it is known.

    Raises
    ------
    NotNumbersError
        All columns that cannot be taken.
    DataError
        Two columns of one name.
    """
    names = tuple(frame.columns)
    check_unique(names, within)
    dtypes, lengths = set(frame.dtypes), lengths or {}
    if len(dtypes) == 1 and lengths.keys().isdisjoint(names):
        only = dtypes.pop()
        if isinstance(only, np.dtype) and kind_of_dtype(only) == "number":
            # Without a copy where all is one block.
            return Numbers(array_values(frame.to_numpy(), Headings(within, names)), names)
    return _joined(frame.items(), series_values, within, lengths, len(frame))


def table_values(table: Any, within: str = "", lengths: Lengths | None = None) -> Numbers:
    """An Arrow table as numbers; raises as frame_values does."""
    names = tuple(table.column_names)
    check_unique(names, within)
    from gmm_dask.storage import types_of

    def converted(column: tuple[Any, Any], where: str, length: int | None) -> Values:
        return arrow_values(*column, where, length)

    types = (type_ for _, type_ in types_of(table.schema))
    columns = zip(names, zip(table.columns, types, strict=True), strict=True)
    return _joined(columns, converted, within, lengths or {}, table.num_rows)


def series_values(series: Any, where: str, length: int | None = None) -> Values:
    """A pandas Series (n,) as numbers, or of lists (n, length); raises NotNumbersError."""
    dtype = series.dtype
    if hasattr(dtype, "pyarrow_dtype"):
        return arrow_values(series.array.__arrow_array__(), dtype.pyarrow_dtype, where, length)
    if isinstance(dtype, np.dtype):
        if dtype.kind == "O":
            return _object_column(series.to_numpy(), where, length)
        return array_values(series.to_numpy(), Headings(only=where))
    kind = kind_of_pandas(dtype)
    if kind not in TAKEN:
        raise NotNumbersError(refusal(where, f"is {dtype}", kind))
    if hasattr(dtype, "subtype"):
        return array_values(np.asarray(series), Headings(only=where))  # sparse
    values = series.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
    masked = np.ma.masked_array(values, series.isna().to_numpy())
    return array_values(masked, Headings(only=where))


def arrow_values(column: Any, type_: Any, where: str, length: int | None = None) -> Values:
    """An array of Arrow (n,) as numbers, or one of lists (n, length); raises NotNumbersError.

    Parameters
    ----------
    type_ : Arrow type
        What the column is, which may say more than the type of the array.
    """
    from gmm_dask.storage import (
        OddValuesError,
        is_list,
        is_number,
        kind_of,
        list_length,
        numbers,
        value_type,
    )

    chunks = getattr(column, "chunks", [column])
    value = value_type(type_)
    if not is_number(value):
        raise NotNumbersError(refusal(where, f"is {type_}", kind_of(value)))
    if not is_list(type_):
        length = None
    elif length is None:
        length = next(filter(None, map(list_length, chunks)), None)
        if length is None:
            raise NotNumbersError(f"{where}: {NO_VALUE}")
    try:
        parts = [numbers(chunk, length) for chunk in chunks]
    except OddValuesError as error:
        raise NotNumbersError(f"{where}: {error}") from None
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0 if length is None else (0, length))


def kind_of_pandas(dtype: Any) -> Kind:
    """The kind of the values in a column of pandas, from its dtype."""
    import pandas as pd

    if isinstance(dtype, np.dtype):
        return kind_of_dtype(dtype)
    if isinstance(dtype, pd.ArrowDtype):
        from gmm_dask.storage import kind_of, value_type

        return kind_of(value_type(dtype.pyarrow_dtype))
    if isinstance(dtype, pd.SparseDtype):
        return kind_of_dtype(np.dtype(dtype.subtype))
    if hasattr(dtype, "numpy_dtype"):
        return kind_of_dtype(dtype.numpy_dtype)
    kinds: tuple[tuple[Kind, type], ...] = (
        ("category", pd.CategoricalDtype),
        ("text", pd.StringDtype),
        ("date", pd.DatetimeTZDtype),
        ("date", pd.PeriodDtype),
    )
    return next((kind for kind, cls in kinds if isinstance(dtype, cls)), "other")


def check_unique(names: Sequence[Any], within: str = "", *, lists: Collection[Any] = ()) -> None:
    """Raise DataError where two columns have one name.

    Parameters
    ----------
    names : sequence
        Names of columns, and of the elements of columns of lists.
    within : str
        Where the columns are, for the message.
    lists : collection
        Names of the columns of lists.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        of_list = (name for name in lists if str(twice).startswith(f"{name}["))
        also = "".join(f", one an element of the lists of {name!r}" for name in of_list)
        raise DataError(f"{within}column {twice!r}: there are two of this name{also}. Rename one.")


def _joined(
    columns: Iterable[tuple[Any, Any]],
    converted: Callable[[Any, str, int | None], Values],
    within: str,
    lengths: Lengths,
    n_rows: int,
) -> Numbers:
    parts: list[Values] = []
    names: list[Any] = []
    lists: list[Any] = []
    problems: list[str] = []
    for name, column in columns:
        where, length = f"{within}column {name!r}", lengths.get(name)
        try:
            part = converted(column, where, length)
            if length is not None and part.ndim == 1:
                part = _absent_lists(part, length, where)
        except NotNumbersError as error:
            problems += error.problems
            continue
        parts.append(part)
        lists += [name] * (part.ndim - 1)
        names += [name] if part.ndim == 1 else [element(name, i) for i in range(part.shape[1])]
    if problems:
        raise NotNumbersError(problems)
    check_unique(names, within, lists=lists)
    all_narrow = parts and all(part.dtype == np.float32 for part in parts)
    X = np.empty((n_rows, len(names)), np.float32 if all_narrow else np.float64)
    first = 0
    for part in parts:
        width = 1 if part.ndim == 1 else part.shape[1]
        X[:, first : first + width] = part.reshape(n_rows, width)
        first += width
    return Numbers(X, tuple(names))


def _absent_lists(values: Values, length: int, where: str) -> Values:
    """Rows of missing values, which a column has where its lists are all absent."""
    if not np.isnan(values).all():
        raise NotNumbersError(f"{where}: holds numbers, where others hold lists of {length}.")
    return np.full((len(values), length), np.nan)


def _object_column(objects: Values, where: str, length: int | None) -> Values:
    """Numbers, or where all that is there are lists of one length, a row of each."""
    absent = np.array([kind_of_class(cls) == "absent" for cls in map(type, objects)], np.bool_)
    lists = objects[~absent]
    if not all(map(is_vector, lists)) or not (length or len(lists)):
        return object_values(objects, where)  # which names what is no number
    try:
        found = listed_values(list(lists), Headings(only=where)) if len(lists) else lists
    except NotNumbersError:
        raise
    except DataError as error:
        raise NotNumbersError(f"{where}: {error}") from None
    width = length or found.shape[1]
    if not width:
        raise NotNumbersError(f"{where}: {NO_VALUE}")
    if len(lists) and found.shape[1] != width:
        raise NotNumbersError(
            f"{where}: a list of {found.shape[1]} values, where others have {width}. Give all "
            "lists one length."
        )
    values = np.full((len(objects), width), np.nan)
    values[~absent] = found.reshape(-1, width)
    return values


def is_vector(value: Any) -> bool:
    """Whether an object is a list of values."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)


def is_of_arrow(X: Any) -> bool:
    """Whether X can be handed to Arrow as it is, and is not of pandas, whose way is another."""
    by_arrow = hasattr(X, "__arrow_c_stream__") or hasattr(X, "__arrow_c_array__")
    return by_arrow and not hasattr(X, "iloc")


def of_arrow(kind: Literal["table", "chunked_array"], X: Any, where: str = "X") -> Any:
    """A table or column of another library as one of Arrow, without a copy; raises DataError."""
    import pyarrow as pa

    try:
        return pa.table(X) if kind == "table" else pa.chunked_array(X)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{where}: a {type(X).__name__} that cannot be read as a {kind} of Arrow: {reason}. "
            "Convert it to float64; rows have to be a table of columns."
        ) from error
