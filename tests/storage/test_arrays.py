"""NumPy's arrays as Arrow's and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gmm_dask.storage.arrow import nulls, to_arrow, to_arrow_lists, to_numpy

TYPES = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int32(), pa.int64(), pa.uint64()]


@pytest.mark.parametrize("type_", TYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 9, 1000])
def test_what_arrow_says_of_them(type_: pa.DataType, n: int) -> None:
    values = np.arange(n).astype(type_.to_pandas_dtype())
    absent = np.arange(n) % 3 == 1
    array = to_arrow(values, type_, absent)
    array.validate(full=True)
    expected = pa.array(values, type_, mask=absent)
    assert array.equals(expected)
    for part in (array, array[n // 2 :], array[n // 3 : n // 2]):
        there = ~nulls(part)
        assert nulls(part).tolist() == [each is None for each in part.to_pylist()]
        assert to_numpy(part)[there].tolist() == part.drop_null().to_pylist()


def test_numbers_are_not_copied() -> None:
    values = np.arange(10.0)
    assert np.shares_memory(to_numpy(to_arrow(values, pa.float64())), values)
    assert to_arrow(values, pa.float64(), np.zeros(10, bool)).null_count == 0


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (5, 2)])
def test_lists(shape: tuple[int, int]) -> None:
    values = np.arange(float(np.prod(shape))).reshape(shape)
    absent = np.arange(shape[0]) == 1
    expected = [None if gone else row for row, gone in zip(values.tolist(), absent, strict=True)]
    found = to_arrow_lists(values, absent)
    found.validate(full=True)
    assert found.to_pylist() == expected
    assert to_arrow_lists(values).to_pylist() == values.tolist()
