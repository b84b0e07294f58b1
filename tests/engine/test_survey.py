"""The survey finds what is unusable and draws the same rows from any chunking."""

from __future__ import annotations

import numpy as np

from gmm_dask.engine import Backend, LocalBackend, row_chunks, survey

SEED = np.random.SeedSequence(9)


def test_any_chunking_and_executor_draws_the_same_rows(backend: Backend) -> None:
    X = np.arange(3000.0).reshape(1000, 3)
    weight = np.arange(1000.0)
    one, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=50, seed=SEED)
    many, _ = survey(row_chunks(X, weight, 500), backend, sample_rows=50, seed=SEED)
    np.testing.assert_array_equal(one.sample, many.sample)
    np.testing.assert_array_equal(one.sample_weight, many.sample_weight)
    assert len(one.sample) == 50
    for name in ("weight", "mean", "scatter", "unit"):
        np.testing.assert_allclose(
            getattr(one.spread, name), getattr(many.spread, name), rtol=1e-12
        )
    assert one.n_rows == many.n_rows == 1000


def test_a_small_data_set_is_its_own_sample() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    found, _ = survey(row_chunks(X, chunk_bytes=100), LocalBackend(1), sample_rows=40, seed=SEED)
    np.testing.assert_array_equal(found.sample, X)


def test_unusable_values_are_counted_and_placed(backend: Backend) -> None:
    X = np.zeros((10, 2))
    X[3, 0] = X[5, 0] = np.nan
    X[7, 1] = -np.inf
    weight = np.ones(10)
    weight[8], weight[9] = -1.0, np.inf
    found, _ = survey(row_chunks(X, weight), backend, sample_rows=100, seed=SEED)
    (chunk,) = found.chunks
    assert chunk.n_missing.tolist() == [2, 0]
    assert chunk.first_missing.tolist() == [3, -1]
    assert chunk.n_infinite.tolist() == [0, 1]
    assert chunk.first_infinite.tolist() == [-1, 7]
    assert (chunk.n_bad_weights, chunk.first_bad_weight) == (2, 8)
    assert found.n_usable == 6
    assert not np.isnan(found.sample).any()


def test_a_value_that_cannot_be_used_is_told_apart_where_its_row_has_weight_zero() -> None:
    X, weight = np.zeros((10, 2)), np.ones(10)
    X[3, 0], X[7, 1], weight[[3, 7]] = np.nan, np.inf, 0.0
    for counted in (False, True):
        found, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=100, seed=SEED)
        (chunk,) = found.chunks
        assert (chunk.n_missing.tolist(), chunk.n_infinite.tolist()) == ([1, 0], [0, 1])
        assert (chunk.has_missing, chunk.has_infinite) == (counted, counted)
        weight[[3, 7]] = 1e-300


def test_where_most_rows_cannot_be_used_another_look_finds_those_that_can(
    backend: Backend,
) -> None:
    X, weight = np.arange(6000.0).reshape(2000, 3), np.zeros(2000)
    weight[[3, 700, 1500, 1999]] = 1.0
    X[700, 1] = np.nan
    one, _ = survey(row_chunks(X, weight), LocalBackend(1), sample_rows=50, seed=SEED)
    many, _ = survey(row_chunks(X, weight, 500), backend, sample_rows=50, seed=SEED)
    for found in (one, many):
        assert (found.n_eligible, found.n_reads) == (3, 2)
        np.testing.assert_array_equal(np.sort(found.sample, axis=0), X[[3, 1500, 1999]])
    weight[700:] = 1.0
    most, _ = survey(row_chunks(X, weight, 500), backend, sample_rows=50, seed=SEED)
    assert (len(most.sample), most.n_reads) == (50, 1)


def test_a_sample_to_look_at_is_drawn_by_place(backend: Backend) -> None:
    X = np.repeat(np.arange(10.0)[:, None], 100, axis=0)
    for size in (500, 1 << 20):
        found, _ = survey(
            row_chunks(X, chunk_bytes=size), backend, sample_rows=200, seed=SEED, by_value=False
        )
        assert (len(found.sample), found.n_reads) == (200, 1)
        counts = np.bincount(found.sample[:, 0].astype(int), minlength=10)
        assert (np.abs(counts - 20) < 5 * np.sqrt(20)).all()


def test_rows_with_gaps_start_a_fit_unless_nothing_is_left_of_them(backend: Backend) -> None:
    X = np.arange(30.0).reshape(10, 3)
    X[2, 1], X[5] = np.nan, np.nan
    found, _ = survey(row_chunks(X), backend, sample_rows=10, seed=SEED, missing="em")
    assert (found.n_usable, found.n_eligible, len(found.sample)) == (10, 9, 9)
    np.testing.assert_allclose(found.spread.mean, np.nanmean(X, axis=0))


def test_unknown_lengths_become_known() -> None:
    import dask.array as da

    X = da.from_array(np.arange(20.0).reshape(10, 2), chunks=(4, 2))
    X = X[X[:, 0] > 5]
    found, chunks = survey(row_chunks(X), LocalBackend(1), sample_rows=3, seed=SEED)
    assert chunks.lengths == (1, 4, 2)
    assert found.sample.shape == (3, 2)
