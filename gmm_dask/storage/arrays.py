"""NumPy's arrays as Arrow's and back; Arrow's own way to either imports pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


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
