"""Whatever a user brings becomes the same rows in chunks."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.engine import LocalBackend, RowChunks, Stream, row_chunks
from gmm_dask.engine.passes.chunk_map import ChunkMap
from gmm_dask.engine.passes.chunks import (
    array_from_sources,
    dask_array,
    even_lengths,
    rows_from_sources,
)
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
    assert len(chunks.X.chunks[1]) == 1
    X = dask_array(chunks.X)
    assert isinstance(X, da.Array)
    np.testing.assert_array_equal(X.compute(scheduler="sync"), ROWS)
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
    assert row_chunks(ROWS.astype(np.float32)).X.dtype == np.float32


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 5000))
def test_even_chunks_add_up_and_keep_the_limit(n: int, d: int, limit: int) -> None:
    lengths = even_lengths(n, d, limit)
    assert sum(lengths) == n
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= max(1, limit // (8 * d))


def test_sources_are_loaded_when_needed_only() -> None:
    loaded: list[int] = []

    def load(source: int) -> np.ndarray:
        loaded.append(source)
        return np.full((2, 1), float(source))

    x = array_from_sources(load, [0, 1, 2], [2, 2, 2], n_features=1, dtype="float64", name="x")
    X = x.to_dask_array()
    assert loaded == []
    assert (
        (x.shape, x.numblocks, x.dtype) == (X.shape, X.numblocks, X.dtype) == ((6, 1), (3, 1), "f8")
    )
    np.testing.assert_array_equal(X[2:4].compute(scheduler="sync"), [[1.0], [1.0]])
    assert loaded == [1]


def test_what_rows_pass_through_sees_them_however_they_are_read() -> None:
    parts = [(np.full((2, 1), float(i)), np.full(2, float(i))) for i in range(3)]
    chunks = rows_from_sources(
        parts.__getitem__, range(3), [2] * 3, n_features=1, dtype="float64", weighted=True
    )

    def tenfold(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return X * 10 + weights[:, None]

    for streams in ((), (Stream(1, 3, lambda: iter(parts[1:])),)):
        X = da.blockwise(
            tenfold, "ij", dask_array(chunks.X), "ij", dask_array(chunks.weights), "i",
            align_arrays=False, dtype=float,
        )  # fmt: skip
        found = blocks(replace(chunks, streams=streams).through(tenfold, X))
        assert [X.tolist() for X, _ in found] == [[[11.0 * i]] * 2 for i in range(3)]
        assert [w.tolist() for _, w in found] == [[float(i)] * 2 for i in range(3)]


def test_units_are_chunks_and_streams_in_order() -> None:
    X = da.zeros((80, 1), chunks=(10, 1))
    streams = (Stream(1, 3, lambda: iter(())), Stream(5, 7, lambda: iter(())))
    spans = [(0, 1), (1, 3), (3, 4), (4, 5), (5, 7), (7, 8)]
    assert [(each.start, each.stop) for each in RowChunks(X, streams=streams).units] == spans
