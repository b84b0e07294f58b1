"""Whatever a user brings becomes the same rows in chunks."""

from __future__ import annotations

from functools import partial

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.engine import LocalBackend, RowChunks, Unit, row_chunks
from gmm_dask.engine.passes.chunk_map import ChunkMap
from gmm_dask.engine.passes.units import even_lengths
from gmm_dask.errors import DataError

ROWS = np.arange(60.0).reshape(20, 3)


def blocks(chunks):
    return ChunkMap(chunks, LocalBackend(1))("block", lambda _, *arrays: arrays, None)


FORMS = {
    "numpy": lambda: ROWS,
    "list": lambda: ROWS.tolist(),
    "dask": lambda: da.from_array(ROWS, chunks=(7, 3)),
    "dask columns cut": lambda: da.from_array(ROWS, chunks=(7, 2)),
    "dask integer": lambda: da.from_array(ROWS.astype(np.int64), chunks=(7, 3)),
    "dask unknown lengths": lambda: (x := da.from_array(ROWS, chunks=(7, 3)))[x[:, 0] >= 0],
    "dask computed": lambda: (da.from_array(ROWS, chunks=(7, 3)) * 2 + 1 - 1) / 2,
    "dataframe": lambda: dd.from_pandas(pd.DataFrame(ROWS), npartitions=3),
    "pandas": lambda: pd.DataFrame(ROWS),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_all_forms_hold_the_same_rows(form: str) -> None:
    chunks = row_chunks(FORMS[form]())
    parts = [X for (X,) in blocks(chunks)]
    np.testing.assert_array_equal(np.concatenate(parts), ROWS)
    assert chunks.n_features == 3


@pytest.mark.parametrize("form", ["numpy", "dask", "dask computed", "dask columns cut"])
def test_weights_lie_beside_their_rows(form: str) -> None:
    weight = np.arange(20.0)
    for given_weight in (weight, da.from_array(weight, chunks=6)):
        pairs = blocks(row_chunks(FORMS[form](), given_weight))
        for X, w in pairs:
            np.testing.assert_array_equal(X[:, 0], 3 * w)
        assert sum(len(w) for _, w in pairs) == 20


@pytest.mark.parametrize("shape", [(19,), (20, 1), ()])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="sample_weight has shape"):
        row_chunks(ROWS, np.ones(shape))


@pytest.mark.parametrize("X", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((3, 0))])
def test_rows_without_two_axes_are_refused(X: np.ndarray) -> None:
    with pytest.raises(DataError, match="X must have"):
        row_chunks(X)


def test_arrays_in_memory_are_not_copied() -> None:
    for (X,) in blocks(row_chunks(ROWS, chunk_bytes=100)):
        assert np.shares_memory(X, ROWS)


def test_float32_stays_float32() -> None:
    assert row_chunks(ROWS.astype(np.float32)).dtype == "float32"


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 5000))
def test_even_chunks_add_up_and_keep_the_limit(n: int, d: int, limit: int) -> None:
    lengths = even_lengths(n, d, limit)
    assert sum(lengths) == n
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= max(1, limit // (8 * d))


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("dask")])
def test_one_block_of_a_dask_array_is_one_unit(form: str) -> None:
    assert [unit.n_chunks for unit in row_chunks(FORMS[form]()).units] == [1, 1, 1]


def test_rows_are_read_when_a_pass_needs_them_only() -> None:
    loaded: list[int] = []

    def block(i: int) -> np.ndarray:
        loaded.append(i)
        return np.full((2, 1), float(i))

    blocks = [da.from_delayed(dask.delayed(block)(i), (2, 1), float) for i in range(3)]
    chunks = row_chunks(da.concatenate(blocks))
    assert loaded == []
    total = ChunkMap(chunks, LocalBackend(1)).summed("sum", lambda _, X: X.sum(), None)
    assert (total, sorted(loaded)) == (6.0, [0, 1, 2])


def test_what_rows_pass_through_sees_them_however_they_are_read() -> None:
    parts = [(np.full((2, 1), float(i)), np.full(2, float(i))) for i in range(3)]

    def tenfold(X: np.ndarray, weights: np.ndarray, index: int) -> np.ndarray:
        return X * 10 + weights[:, None] + 100 * index

    one_each = tuple(Unit(partial(iter, [part]), (2,)) for part in parts)
    together = (one_each[0], Unit(partial(iter, parts[1:]), (2, 2)))
    for units in (one_each, together):
        chunks = RowChunks(units, 1, weight_dtype="float64").through(tenfold)
        found = blocks(chunks)
        assert [X.tolist() for X, _ in found] == [[[111.0 * i]] * 2 for i in range(3)]
        assert [w.tolist() for _, w in found] == [[float(i)] * 2 for i in range(3)]
