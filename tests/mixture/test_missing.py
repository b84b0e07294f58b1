"""EM with missing values against a row-by-row textbook implementation, and its laws."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting import Maximisation, fit
from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    Parameters,
    Prior,
    SufficientStatistics,
    m_step,
    missing,
    steps,
)
from gmm_dask.mixture.missing.patterns import patterns
from tests.mixture.test_steps import FIELDS, assert_close
from tests.strategies import cuts, mixtures, random_mixture, seeds

Textbook = tuple[np.ndarray, np.ndarray, np.ndarray]


def holes(seed: int, n: int, d: int, share: float = 0.4) -> np.ndarray:
    """Rows with values missing; the last row has none left."""
    rng = np.random.default_rng(seed)
    X = rng.normal(scale=2.0, size=(n, d))
    X[rng.uniform(size=(n, d)) < share] = np.nan
    X[-1] = np.nan
    return X


def textbook_em(
    X: np.ndarray, weight: np.ndarray, parameters: Parameters, n_passes: int, reg_covar: float
) -> tuple[Textbook, list[float]]:
    """EM row by row with conditional means and covariances; Little and Rubin, 11.2.

    Each value that is there counts as if it had the variance reg_covar of its own.
    """
    weights, means = parameters.weights, parameters.means
    covariances = np.array(parameters.dense_covariances())
    (k, d), totals = means.shape, []
    for _ in range(n_passes):
        mass, first = np.zeros(k), np.zeros((k, d))
        second, total = np.zeros((k, d, d)), 0.0
        for x, w in zip(X, weight, strict=True):
            o = np.flatnonzero(~np.isnan(x))
            m = np.flatnonzero(np.isnan(x))
            density = weights.copy()
            for j in range(k):
                if len(o):
                    away, block = x[o] - means[j][o], covariances[j][np.ix_(o, o)]
                    distance = away @ np.linalg.solve(block, away)
                    density[j] *= np.exp(-distance / 2) / np.sqrt(np.linalg.det(2 * np.pi * block))
            total += w * np.log(density.sum())
            r = w * density / density.sum()
            for j in range(k):
                S, full = covariances[j], means[j].copy()
                left = S.copy()
                if len(o):
                    gain = S[np.ix_(m, o)] @ np.linalg.inv(S[np.ix_(o, o)])
                    full[o] = x[o]
                    full[m] += gain @ (x[o] - means[j][o])
                    left = np.zeros((d, d))
                    left[np.ix_(m, m)] = S[np.ix_(m, m)] - gain @ S[np.ix_(o, m)]
                mass[j] += r[j]
                first[j] += r[j] * full
                second[j] += r[j] * (np.outer(full, full) + left)
                second[j][o, o] += r[j] * reg_covar
        means = first / mass[:, None]
        each = [s / n - np.outer(mu, mu) for s, n, mu in zip(second, mass, means, strict=True)]
        weights = mass / mass.sum()
        covariances = constrained(np.array(each), weights, parameters.covariance_type)
        totals.append(total)
    return (weights, means, covariances), totals


def constrained(full: np.ndarray, weights: np.ndarray, covariance_type: str) -> np.ndarray:
    d = full.shape[1]
    if covariance_type == "tied":
        return np.broadcast_to(np.einsum("k,kij->ij", weights, full), full.shape)
    if covariance_type == "diag":
        return full * np.eye(d)
    if covariance_type == "spherical":
        return np.einsum("kii->k", full)[:, None, None] / d * np.eye(d)
    return full


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("reg_covar", [0.0, 0.5])
def test_three_passes_are_the_textbooks(
    covariance_type: str, k: int, d: int, weighted: bool, reg_covar: float
) -> None:
    X = holes(5, 80, d)
    weight = np.random.default_rng(6).uniform(0.2, 3, 80) if weighted else np.ones(80)
    start = random_mixture(covariance_type, k, d, 7)
    expected, totals = textbook_em(X, weight, start, 3, reg_covar)
    e_step = partial(missing.e_step, X, sample_weight=weight if weighted else None)
    found = fit(e_step, start, Maximisation(reg_covar), tol=0, max_iter=3)
    np.testing.assert_allclose(np.array(found.lower_bounds) * weight.sum(), totals, rtol=1e-11)
    np.testing.assert_allclose(found.parameters.weights, expected[0], rtol=1e-9)
    np.testing.assert_allclose(found.parameters.means, expected[1], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        found.parameters.dense_covariances(), expected[2], rtol=1e-8, atol=1e-9
    )


@given(mixtures(max_features=4), seeds)
def test_predictions_are_those_of_the_marginals(parameters: Parameters, seed: int) -> None:
    X = holes(seed, 12, parameters.n_features)
    resp, density = (
        missing.responsibilities(X, parameters),
        missing.score_rows(X, parameters).log_density,
    )
    for x, r, log_p in zip(X, resp, density, strict=True):
        o = np.flatnonzero(~np.isnan(x))
        joint = np.log(parameters.weights)
        for j, S in enumerate(parameters.dense_covariances()):
            if len(o):
                marginal = multivariate_normal(parameters.means[j][o], S[np.ix_(o, o)])
                joint[j] += marginal.logpdf(x[o])
        np.testing.assert_allclose(r, np.exp(joint - np.logaddexp.reduce(joint)), atol=1e-9)
        np.testing.assert_allclose(log_p, np.logaddexp.reduce(joint), atol=1e-8)
    scores = missing.score_rows(X, parameters)
    np.testing.assert_array_equal(scores.labels, missing.score_rows(X, parameters).labels)
    np.testing.assert_allclose(scores.max_responsibility, resp.max(axis=1), rtol=1e-12)


@given(mixtures(max_features=4), seeds)
def test_what_is_imputed_is_the_conditional_mean(parameters: Parameters, seed: int) -> None:
    X = holes(seed, 10, parameters.n_features)
    filled = missing.impute(X, parameters)
    there = ~np.isnan(X)
    np.testing.assert_array_equal(filled[there], X[there])
    resp = missing.responsibilities(X, parameters)
    for x, r, complete in zip(X, resp, filled, strict=True):
        o, m = np.flatnonzero(~np.isnan(x)), np.flatnonzero(np.isnan(x))
        expected = np.zeros(len(m))
        for mu, S, share in zip(parameters.means, parameters.dense_covariances(), r, strict=True):
            gain = S[np.ix_(m, o)] @ np.linalg.inv(S[np.ix_(o, o)])
            expected += share * (mu[m] + gain @ (x[o] - mu[o]))
        np.testing.assert_allclose(complete[m], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_without_missing_values_the_bits_are_those_of_the_plain_path(covariance_type: str) -> None:
    parameters = random_mixture(covariance_type, 3, 4, 2)
    X = np.random.default_rng(3).normal(size=(500, 4))
    weight = np.random.default_rng(4).uniform(size=500)
    found, plain = (step(X, parameters, weight) for step in (missing.e_step, steps.e_step))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    for name in ("score_rows", "responsibilities"):
        np.testing.assert_array_equal(
            getattr(missing, name)(X, parameters), getattr(steps, name)(X, parameters)
        )


@given(st.data(), mixtures(), seeds, st.integers(1, 40))
def test_any_chunking_gives_the_same_sums(
    data: st.DataObject, parameters: Parameters, seed: int, n: int
) -> None:
    X = holes(seed, n, parameters.n_features)
    total, start = SufficientStatistics.zero(parameters), 0
    for length in data.draw(cuts(n)):
        total = total + missing.e_step(X[start : start + length], parameters)
        start += length
    assert_close(total, missing.e_step(X, parameters))


@given(mixtures(), seeds)
def test_integer_weights_are_repeated_rows(parameters: Parameters, seed: int) -> None:
    X = holes(seed, 25, parameters.n_features)
    weight = np.random.default_rng(seed).integers(0, 4, 25)
    weighted = missing.e_step(X, parameters, weight)
    repeated = missing.e_step(np.repeat(X, weight, axis=0), parameters)
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-10, atol=1e-10
        )


@given(mixtures(max_components=2, max_features=3), seeds)
def test_the_observed_log_likelihood_never_falls(start: Parameters, seed: int) -> None:
    X = holes(seed, 120, start.n_features, share=0.25)
    try:
        result = fit(partial(missing.e_step, X), start, Maximisation(0), tol=0, max_iter=8)
    except SingularCovarianceError:
        reject()
    smallest = min(parameters.weights.min() for parameters in result.trajectory)
    assume(smallest * len(X) > 3 * (start.n_features + 2))
    assert np.diff(result.lower_bounds).min() > -1e-10 * np.abs(result.lower_bounds).max()


def test_rows_with_nothing_observed_get_the_mixtures_weights_and_change_nothing() -> None:
    parameters = random_mixture("full", 3, 2, 8)
    X = holes(9, 60, 2)
    empty = np.full((7, 2), np.nan)
    np.testing.assert_array_equal(
        missing.responsibilities(empty, parameters), np.tile(parameters.weights, (7, 1))
    )
    scores = missing.score_rows(empty, parameters)
    assert (scores.labels == parameters.weights.argmax()).all()
    assert (scores.log_density == 0).all()
    converged = fit(
        partial(missing.e_step, X), parameters, Maximisation(1e-3), tol=1e-13, max_iter=20000
    ).parameters
    with_empty = m_step(converged, missing.e_step(np.r_[X, empty], converged), 0.0)
    without = m_step(converged, missing.e_step(X, converged), 0.0)
    np.testing.assert_allclose(with_empty.weights, without.weights, atol=1e-7)


def half_seen(n: int = 400) -> np.ndarray:
    """Two clusters far apart in the first column; the second's rows never have the second one."""
    rng = np.random.default_rng(11)
    X = rng.normal(size=(n, 2)) + np.array([[0.0, 5.0]])
    X[::2, 0] += 100
    X[::2, 1] = np.nan
    X[1::4, 1] = np.nan
    return X


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_feature_that_a_component_never_sees_keeps_its_variance(covariance_type: str) -> None:
    start = Parameters.from_covariances(
        [0.5, 0.5],
        [[0.0, 4.0], [100.0, 2.0]],
        np.stack([np.eye(2), np.diag([1.0, 7.0])])
        if covariance_type == "full"
        else [[1.0, 1.0], [1.0, 7.0]],
        covariance_type,
    )
    result = fit(
        partial(missing.e_step, half_seen()), start, Maximisation(0.1), tol=0, max_iter=500
    )
    covariances = result.parameters.dense_covariances()
    assert covariances[1, 1, 1] == pytest.approx(7.0, rel=1e-12)
    assert result.parameters.means[1, 1] == pytest.approx(2.0, rel=1e-12)
    assert covariances[1, 0, 0] == pytest.approx(half_seen()[::2, 0].var() + 0.1, rel=1e-9)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_reg_covar_is_added_once_to_the_variance_of_what_is_there(covariance_type: str) -> None:
    X = half_seen()[1::2]
    there = ~np.isnan(X)
    mean, n = np.nanmean(X, axis=0), there.sum(axis=0)
    S = np.where(there, (X - mean) ** 2, 0.0).sum(axis=0)
    expected = S / n + 0.3
    if covariance_type == "spherical":
        expected = np.full(2, S.sum() / n.sum() + 0.3)
    start = random_mixture(covariance_type, 1, 2, 3)
    result = fit(partial(missing.e_step, X), start, Maximisation(0.3), tol=0, max_iter=600)
    found = result.parameters.dense_covariances()[0]
    if covariance_type in ("full", "tied"):  # by regression on the first column
        paired = X[there.all(axis=1)]
        assert found[0, 0] == pytest.approx(expected[0], rel=1e-9)
        assert found[1, 1] < 2 * (paired[:, 1].var() + 0.3)
        np.testing.assert_allclose(result.parameters.means[0], mean, atol=0.2)
    else:
        np.testing.assert_allclose(np.diagonal(found), expected, rtol=1e-9)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("believed", [False, True], ids=["", "prior"])
def test_where_all_is_observed_all_of_reg_covar_is_added(
    covariance_type: str, believed: bool
) -> None:
    parameters = random_mixture(covariance_type, 3, 2, 1)
    prior = Prior(2.0, 1.5, np.ones(2), 4.0, np.array([1.0, 2.0])) if believed else None
    plain = steps.e_step(np.random.default_rng(2).normal(size=(60, 2)), parameters)
    counted = replace(plain, sum_observed=plain.observed.copy())
    np.testing.assert_allclose(
        m_step(parameters, counted, 0.7, prior).covariances,
        m_step(parameters, plain, 0.7, prior).covariances,
        rtol=1e-14,
    )


@given(mixtures(), seeds, st.permutations(range(4)))
def test_parts_with_and_without_missing_values_merge_in_any_order(
    parameters: Parameters, seed: int, order: list[int]
) -> None:
    d = parameters.n_features
    complete = np.random.default_rng(seed).normal(size=(20, d))
    parts = [
        missing.e_step(X, parameters)
        for X in (complete[:9], holes(seed, 12, d), complete[9:], np.full((3, d), np.nan))
    ]
    a, b, c, e = (parts[i] for i in order)
    expected = parts[0] + parts[1] + parts[2] + parts[3]
    assert_close((a + b) + (c + e), expected)
    assert_close(a + (b + (c + e)), expected)
    there = np.r_[np.ones((20, d)), ~np.isnan(holes(seed, 12, d)), np.zeros((3, d))]
    X = np.r_[complete, holes(seed, 12, d), np.full((3, d), np.nan)]
    shares = missing.responsibilities(X, parameters)
    np.testing.assert_allclose(expected.observed, shares.T @ there, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_nearly_collinear_columns_are_completed_to_full_precision(covariance_type: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    X = np.stack([x, x + 1e-6 * rng.normal(size=200)], axis=1)
    cov = np.cov(X.T, bias=True)
    parameters = Parameters.from_covariances(
        [1.0], [X.mean(axis=0)], [cov] if covariance_type == "full" else cov, covariance_type
    )
    X[::2, 1] = np.nan
    filled = missing.impute(X, parameters)
    expected = parameters.means[0, 1] + cov[0, 1] / cov[0, 0] * (X[::2, 0] - X[:, 0].mean())
    np.testing.assert_allclose(filled[::2, 1], expected, rtol=0, atol=1e-9)


def test_patterns_are_told_apart_in_any_number_of_features() -> None:
    X = np.zeros((2**9, 9))
    X[np.array(list(product([False, True], repeat=9)))] = np.nan
    found = list(patterns(X))
    assert len(found) == 2**9
    assert sorted(int(row) for pattern in found for row in pattern.rows) == list(range(2**9))
    for pattern in found:
        assert np.isnan(X[pattern.rows][:, pattern.missing]).all()
        assert not np.isnan(X[pattern.rows][:, pattern.observed]).any()
