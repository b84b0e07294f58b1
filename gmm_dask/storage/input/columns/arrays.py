"""NumPy's arrays as Arrow's and back; Arrow's own way to either imports pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.kinds import INEXACT, inexact
from gmm_dask.storage.input.columns.lists import is_list
from gmm_dask.storage.input.columns.roles import cast_of, number_type


class OddValuesError(ValueError):
    """Values that cannot be taken: which, and the remedy; the caller knows where they are."""


def numbers(array: pa.Array, length: int | None = None) -> npt.NDArray[Any]:
    """The numbers of a column, NaN for null; integers remain integers where none is null.

    Parameters
    ----------
    array : (n,)
        Of a type that is a number, or that was asked to be taken for one.
    length : int, optional
        Of each list, where the array is one of lists.

    Returns
    -------
    (n,), or (n, length)

    Raises
    ------
    OddValuesError
        float64 would round an integer, or a list is of another length.
    """
    if pa.types.is_null(array.type):
        return np.full(len(array) if length is None else (len(array), length), np.nan)
    if length is not None:
        if not is_list(array.type):
            raise OddValuesError(f"values of type {array.type}, where others are lists.")
        return _vectors(array, length)
    if cast_of(array.type):
        array = array.cast(number_type(array.type))
    values, absent = to_numpy(array), nulls(array) if array.null_count else None
    if not pa.types.is_integer(array.type):
        return values if absent is None else np.where(absent, values.dtype.type(np.nan), values)
    if absent is not None:
        values = np.where(absent, values.dtype.type(0), values)
    wrong = inexact(values)
    if wrong is not None:
        raise OddValuesError(f"integers up to {wrong}, beyond 2^53. {INEXACT}")
    return values if absent is None else np.where(absent, np.nan, values.astype(np.float64))


def list_length(array: pa.Array) -> int | None:
    """Length of the first list that is not null; None where all are."""
    lengths = _lists(array).drop_null().value_lengths()
    return int(to_numpy(lengths)[0]) if len(lengths) else None


def _lists(array: pa.Array) -> pa.Array:
    """The lists of an array of lists; a tensor stores them."""
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _vectors(array: pa.Array, length: int) -> npt.NDArray[Any]:
    """Lists of one length as rows; one that is null is a row of NaN."""
    lists = _lists(array)
    absent = nulls(lists) if lists.null_count else None
    there = lists if absent is None else lists.drop_null()
    lengths = to_numpy(there.value_lengths())
    wrong = lengths[lengths != length]
    if wrong.size:
        raise OddValuesError(
            f"a list of {wrong[0]} values, where others have {length}. Give all lists one length."
        )
    values = numbers(there.flatten()).reshape(len(there), length)
    if absent is None:
        return values
    rows = np.full((len(lists), length), np.nan, np.result_type(values.dtype, np.float32))
    rows[~absent] = values
    return rows


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Numbers without a copy; what stands where one is null is anything."""
    buffers = array.buffers()
    if buffers[1] is None:  # of no values
        return np.empty(0, array.type.to_pandas_dtype())
    values = pa.Array.from_buffers(
        array.type, len(array), [None, buffers[1]], null_count=0, offset=array.offset
    )
    return np.from_dlpack(values)


def nulls(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Where an array is null, (n,)."""
    return to_numpy(array.is_null().cast(pa.uint8())).view(np.bool_)


def to_arrow(
    values: npt.NDArray[Any], type_: pa.DataType, absent: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Numbers of one type without a copy, null where `absent`."""
    whole = np.ascontiguousarray(values, dtype=type_.to_pandas_dtype())
    there = None
    if absent is not None and absent.any():
        there = _bits(~absent)
    return pa.Array.from_buffers(type_, len(whole), [there, pa.py_buffer(whole)])


def to_arrow_lists(
    values: npt.NDArray[np.float64], absent: npt.NDArray[np.bool_] | None = None
) -> pa.ListArray:
    """Each row (k,) of the values (n, k) as a list, null where `absent`."""
    n, k = values.shape
    offsets = to_arrow(np.arange(n + 1) * k, pa.int32())
    of_all = to_arrow(values.ravel(), pa.float64())
    lists = pa.ListArray.from_arrays(offsets, of_all)
    if absent is None or not absent.any():
        return lists
    return pa.Array.from_buffers(
        lists.type, n, [_bits(~absent), lists.buffers()[1]], children=[of_all]
    )


def _bits(mask: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(mask, bitorder="little"))
