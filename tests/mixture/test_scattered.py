"""Rows of many patterns at once: the same algebra as pattern by pattern, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import DataError, SingularCovarianceError
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, missing
from gmm_dask.mixture.missing.patterns import Patterns
from gmm_dask.mixture.missing.scattered import Scattered
from tests.mixture.test_missing import holes
from tests.mixture.test_steps import FIELDS
from tests.parity.high_precision import Exact, posteriors
from tests.strategies import mixtures, random_mixture, seeds

CORRELATED = ("full", "tied")


@contextmanager
def limits(**values: int) -> Iterator[None]:
    """Other limits of the module for a while."""
    before = {name: getattr(missing, name) for name in values}
    try:
        for name, value in values.items():
            setattr(missing, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(missing, name, value)


def everything(X: np.ndarray, parameters: Parameters, weight: np.ndarray | None) -> list:
    found, scores = missing.e_step(X, parameters, weight), missing.score_rows(X, parameters)
    return [
        *(getattr(found, name) for name in FIELDS),
        *scores,
        missing.responsibilities(X, parameters),
        missing.impute(X, parameters),
    ]


def assert_equal(found: list, expected: list) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@given(mixtures(max_features=6), seeds, st.integers(1, 60), st.booleans())
def test_many_patterns_at_once_are_the_patterns_one_by_one(
    parameters: Parameters, seed: int, n: int, weighted: bool
) -> None:
    X = holes(seed, n, parameters.n_features)
    weight = np.random.default_rng(seed).integers(0, 3, n) * 0.7 if weighted else None
    with limits(POPULOUS=1):
        one_by_one = everything(X, parameters, weight)
    with limits(POPULOUS=10**9):
        assert_equal(everything(X, parameters, weight), one_by_one)


@given(mixtures(max_features=5), seeds)
def test_neither_blocks_nor_stacks_are_seen_in_the_result(
    parameters: Parameters, seed: int
) -> None:
    X = holes(seed, 50, parameters.n_features)
    expected = everything(X, parameters, None)
    with limits(BLOCK_BYTES=8 * 7 * parameters.n_features, STACK_BYTES=1, POPULOUS=3):
        assert_equal(everything(X, parameters, None), expected)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_every_row_is_in_one_part_and_parts_are_few(covariance_type: str) -> None:
    X = holes(1, 2000, 12, 0.5)
    parameters = random_mixture(covariance_type, 3, 12, 2)
    parts = list(missing._parts(X, parameters))
    rows = np.concatenate([part.rows for part in parts])
    np.testing.assert_array_equal(np.sort(rows), np.arange(2000))
    assert len(Patterns.of(np.isnan(X)).absent) > 1000
    assert len(parts) < 60


@given(seeds, st.integers(1, 130), st.integers(1, 40))
def test_bundles_hold_the_rows_of_their_patterns(seed: int, d: int, n: int) -> None:
    absent = np.isnan(holes(seed, n, d))
    groups, bundles = Patterns.of(absent).split(3, 5)
    seen = [group.rows for group in groups]
    for group in groups:
        assert (absent[group.rows][:, group.missing]).all()
        assert not absent[group.rows][:, group.observed].any()
    for bundle in bundles:
        seen.append(bundle.rows)
        expected = np.zeros((len(bundle.rows), d), bool)
        np.put_along_axis(expected, bundle.missing[bundle.which], True, axis=1)
        np.testing.assert_array_equal(absent[bundle.rows], expected)
        assert len(bundle.rows) < 5 + 3
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(n))


@pytest.mark.parametrize("covariance_type", CORRELATED)
def test_columns_of_scales_1e_minus_100_to_1e100_are_completed_alike(covariance_type: str) -> None:
    unit = random_mixture(covariance_type, 3, 6, 4)
    scale = np.logspace(-100, 100, 6)
    scaled = Parameters.from_covariances(
        unit.weights,
        unit.means * scale,
        unit.covariances * scale[:, None] * scale,
        covariance_type,
    )
    X = holes(5, 40, 6)
    np.testing.assert_allclose(
        missing.impute(X * scale, scaled) / scale, missing.impute(X, unit), rtol=1e-9
    )
    found, expected = missing.e_step(X * scale, scaled), missing.e_step(X, unit)
    np.testing.assert_allclose(found.sum_resp, expected.sum_resp, rtol=1e-9)
    np.testing.assert_allclose(found.sum_x / scale, expected.sum_x, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        found.sum_xx / scale[:, None] / scale, expected.sum_xx, rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("covariance_type", CORRELATED)
def test_nearly_collinear_columns_are_completed_in_a_few_rows(covariance_type: str) -> None:
    noise = 1e-6
    cov = np.array([[1.0, 1.0, 0.3], [1.0, 1.0 + noise**2, 0.3], [0.3, 0.3, 1.0]])
    parameters = Parameters.from_covariances(
        [1.0], [[0.0, 0.0, 0.0]], [cov] if covariance_type == "full" else cov, covariance_type
    )
    X = np.array([[0.7, np.nan, np.nan], [np.nan, -1.2, np.nan], [0.1, np.nan, 2.0]])
    assert all(isinstance(part, Scattered) for part in missing._parts(X, parameters))
    filled = missing.impute(X, parameters)
    np.testing.assert_allclose(filled[0], [0.7, 0.7, 0.21], atol=1e-9)
    np.testing.assert_allclose(filled[1], [-1.2, -1.2, -0.36], atol=1e-9)
    np.testing.assert_allclose(filled[2, 1], 0.1, atol=1e-9)


@pytest.mark.parametrize("size", [1e8, 1e100, 1e200, 1.7e308])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_far_rows_with_values_missing_have_exact_shares(covariance_type: str, size: float) -> None:
    parameters = random_mixture(covariance_type, 3, 4, 5)
    X = holes(6, 12, 4)[:-1]
    X[~np.isnan(X)] = np.random.default_rng(7).normal(size=int((~np.isnan(X)).sum()))
    X = size * (X / np.nanmax(np.abs(X), axis=1, keepdims=True))
    resp = missing.responsibilities(X, parameters)
    for x, shares in zip(X, resp, strict=True):
        o = np.flatnonzero(~np.isnan(x))
        S = parameters.dense_covariances()[:, o[:, None], o]
        exact = Exact.of(parameters.weights, parameters.means[:, o], S)
        np.testing.assert_allclose(shares, posteriors(x[None, o], exact)[0], rtol=0, atol=1e-12)
    near = holes(8, 30, 4)
    both = np.concatenate([near, X])
    np.testing.assert_allclose(missing.responsibilities(both, parameters)[30:], resp, atol=1e-15)
    found = missing.score_rows(both, parameters).log_density
    np.testing.assert_allclose(
        found[:30], missing.score_rows(near, parameters).log_density, rtol=1e-12
    )
    assert np.isfinite(found[30:]).all() == (size < 1e150)


@pytest.mark.parametrize("n", [1, 100])
def test_a_mixture_that_is_none_for_some_features_is_named(n: int) -> None:
    sound = random_mixture("full", 2, 3, 1)
    bad = np.array(sound.covariances)
    bad[1, :2, :2] = 1.0
    parameters = replace(
        sound,
        family=replace(sound.family, covariances=bad, known_factors=sound.precisions_cholesky),
    )
    X = np.repeat([[0.1, 0.2, np.nan]], n, axis=0)
    with pytest.raises(SingularCovarianceError, match="component 1"):
        missing.score_rows(X, parameters)


@pytest.mark.parametrize("n", [1, 100])
@pytest.mark.parametrize("covariance_type", CORRELATED)
def test_a_precision_that_completes_nothing_is_named(covariance_type: str, n: int) -> None:
    shape = (1, 3, 3) if covariance_type == "full" else (3, 3)
    factor = np.broadcast_to(np.array([[1.0, 1, 1], [1, 1, 1], [0, 0, 1]]), shape)
    parameters = Parameters.from_arrays(
        [1.0], np.zeros((1, 3)), np.eye(3).reshape(shape), factor, covariance_type
    )
    with pytest.raises(SingularCovarianceError, match="cannot be completed"):
        missing.impute(np.repeat([[np.nan, np.nan, 1.0]], n, axis=0), parameters)


def test_weights_are_checked_as_without_missing_values() -> None:
    X, parameters = holes(1, 20, 3), random_mixture("full", 2, 3, 1)
    with pytest.raises(DataError, match="weights were given"):
        missing.e_step(X, parameters, np.ones(19))
    with pytest.raises(DataError, match="negative, NaN or infinite"):
        missing.e_step(X, parameters, np.full(20, -1.0))
    with pytest.raises(ValueError, match="X has 2 features, the mixture has 3"):
        missing.e_step(X[:, :2], parameters)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize(("n", "d", "share"), [(600_000, 8, 0.3), (20_000, 30, 0.5)])
def test_a_pass_takes_no_more_memory_than_64_mb(
    covariance_type: str, n: int, d: int, share: float
) -> None:
    X, parameters = holes(1, n, d, share), random_mixture(covariance_type, 4, d, 2)
    tracemalloc.start()
    try:
        missing.e_step(X, parameters)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
