"""The sample of a start: neither order, nor chunks, nor repeats, nor the weights' scale matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gmm_dask.engine import LocalBackend, Survey, row_chunks, survey
from gmm_dask.sampling import sketch
from gmm_dask.sampling.sketch import MUCH, fewer
from tests.strategies import seeds

SEED = np.random.SeedSequence(9)
SIZE = 60
sizes = st.sampled_from([40, 200, 300, 2000])  # rows: all in the sample, more, many more
kinds = st.sampled_from(["even", "uneven", "few heavy"])


def drawn(
    X: np.ndarray, weight: np.ndarray | None = None, size: int = SIZE, chunk_bytes: int = 4000
) -> Survey:
    chunks = row_chunks(X, weight, chunk_bytes)
    return survey(chunks, LocalBackend(1), sample_rows=size, seed=SEED, missing="em")[0]


def counted(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Integer weights of n rows, some of them 0."""
    if kind == "even":
        return rng.integers(0, 2, n)
    if kind == "uneven":
        return rng.integers(0, 6, n)
    return np.where(rng.uniform(size=n) < 4 / n, n, rng.integers(0, 3, n))


def values(n: int, rng: np.random.Generator) -> np.ndarray:
    X = rng.normal(size=(n, 2))
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    X[rng.uniform(size=n) < 0.02] = 0.0
    return X


def same(one: Survey, other: Survey, rtol: float = 0.0) -> None:
    np.testing.assert_array_equal(one.sample, other.sample)
    assert one.sample_weight is not None
    assert other.sample_weight is not None
    shares = (s.sample_weight / s.sample_weight.sum() for s in (one, other))
    np.testing.assert_allclose(*shares, rtol=rtol or 1e-15)


@given(seeds, sizes, kinds)
def test_a_weight_is_that_many_rows_anywhere_and_zero_is_none(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    X, weight = values(n, rng), counted(kind, n, rng)
    repeated = rng.permutation(np.repeat(X, weight, axis=0))
    positive = weight > 0
    assume(positive.sum() > SIZE)  # or all rows are taken as they are
    weighted = drawn(X, weight)
    same(weighted, drawn(repeated))
    same(weighted, drawn(X[positive], weight[positive]))


@given(seeds, sizes, kinds, st.floats(-300, 300), st.integers(-900, 900))
def test_the_scale_of_the_weights_draws_no_other_sample(
    seed: int, n: int, kind: str, power: float, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    X, weight = values(n, rng), counted(kind, n, rng) * rng.uniform(0.5, 1, n)
    plain = drawn(X, weight)
    same(plain, drawn(X, weight * 10.0**power), rtol=1e-12)
    exact = drawn(X, weight * 2.0**exponent)
    np.testing.assert_array_equal(exact.sample, plain.sample)
    if n > SIZE:
        np.testing.assert_array_equal(exact.sample_weight, plain.sample_weight)


@given(seeds, sizes, kinds, st.integers(400, 20_000))
def test_order_and_chunks_draw_no_other_sample(
    seed: int, n: int, kind: str, chunk_bytes: int
) -> None:
    assume(n > SIZE)
    rng = np.random.default_rng(seed)
    X, order = values(n, rng), rng.permutation(n)
    weight = counted(kind, n, rng) * rng.uniform(0.5, 1, n)
    there = drawn(X[order], weight[order], chunk_bytes=chunk_bytes)
    same(drawn(X, weight), there, rtol=1e-12)


@given(seeds, sizes, kinds)
def test_the_sample_is_of_different_rows_within_its_size_with_the_shares_of_the_data(
    seed: int, n: int, kind: str
) -> None:
    assume(n > SIZE)
    rng = np.random.default_rng(seed)
    X, weight = values(n, rng), counted(kind, n, rng)
    weight[np.isnan(X).all(axis=1)] = 0  # such rows start nothing
    found = drawn(X, weight)
    assert len(found.sample) <= SIZE
    assert len(np.unique(np.nan_to_num(found.sample, nan=99.0), axis=0)) == len(found.sample)
    heavy = np.flatnonzero(weight >= 2 / SIZE * weight.sum())
    for row in X[heavy]:
        (place,) = np.flatnonzero(~sketch.differ(found.sample, row[None]))
        equal = weight[~sketch.differ(X, row[None])].sum()
        share = found.sample_weight[place] / found.sample_weight.sum()
        assert share == pytest.approx(equal / weight.sum())


def test_where_all_values_fit_they_are_taken_with_all_their_weight() -> None:
    X = np.random.default_rng(0).integers(0, 5, (5000, 2)).astype(float)
    found = drawn(X)
    expected, counts = np.unique(X, axis=0, return_counts=True)
    order = np.lexsort(found.sample.T[::-1])
    np.testing.assert_array_equal(found.sample[order], expected)
    np.testing.assert_array_equal(found.sample_weight[order], counts)


def test_one_look_is_enough_where_rows_differ_and_two_where_one_value_is_everywhere() -> None:
    X = np.random.default_rng(0).normal(size=(20_000, 2))
    assert drawn(X, size=1000).n_reads == 1
    X[::2] = 0.0
    found = drawn(X, size=1000)
    assert (found.n_reads, len(found.sample)) == (2, 1000)
    zero = (found.sample == 0).all(axis=1)
    assert found.sample_weight[zero] / found.sample_weight.sum() == pytest.approx(0.5)


def test_another_seed_draws_another_sample() -> None:
    X = np.random.default_rng(0).normal(size=(1000, 2))
    other, _ = survey(
        row_chunks(X), LocalBackend(1), sample_rows=SIZE, seed=np.random.SeedSequence(10)
    )
    assert len(np.intersect1d(drawn(X).sample[:, 0], other.sample[:, 0])) < SIZE / 2


@given(seeds, kinds)
def test_fewer_rows_of_a_sample_are_a_sample_of_that_size(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    least = round(2 / MUCH)
    X, weight = values(4 * least, rng), counted(kind, 4 * least, rng)
    weight[(X == 0).all(axis=1)] *= 4  # so that no row weighs nearly, but not quite, much
    assume((weight > 0).sum() > 2 * least)
    large, small = drawn(X, weight, 2 * least), drawn(X, weight, least)
    assert large.sample_weight is not None
    rows, weights = fewer(large.sample, large.sample_weight, least)
    same(replace(large, sample=rows, sample_weight=weights), small, rtol=1e-12)
    assert len(rows) <= least
