"""E-step and M-step against textbook formulas in scipy, and against the laws of sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    Parameters,
    SufficientStatistics,
    e_step,
    labels,
    log_density,
    m_step,
    parameters_from_responsibilities,
    responsibilities,
    score_rows,
)
from gmm_dask.mixture.statistics import statistics_bytes
from gmm_dask.mixture.steps import TILE_BYTES, tile_rows
from tests.strategies import covariance_types, cuts, mixtures, random_mixture, seeds

FIELDS = ("sum_weight", "log_likelihood", "sum_resp", "sum_x", "sum_xx", "observed")


def textbook_joint(X: np.ndarray, parameters: Parameters) -> np.ndarray:
    """log weight + log density of each component, (n, k), by scipy."""
    columns = [
        np.log(w) + multivariate_normal(m, c, allow_singular=False).logpdf(X).reshape(len(X))
        for w, m, c in zip(
            parameters.weights, parameters.means, parameters.dense_covariances(), strict=True
        )
    ]
    return np.stack(columns, axis=1)


def textbook_m_step(X: np.ndarray, resp: np.ndarray, covariance_type: str, reg: float):
    """Weights, means, covariances by the two-pass formulas of Bishop 9.24 to 9.26."""
    nk = resp.sum(axis=0)
    means = (resp.T @ X) / nk[:, None]
    full = np.stack(
        [(resp[:, j, None] * (X - m)).T @ (X - m) / nk[j] for j, m in enumerate(means)]
    ) + reg * np.eye(X.shape[1])
    weights = nk / nk.sum()
    covariances = {
        "full": full,
        "tied": np.einsum("k,kij->ij", weights, full),
        "diag": np.einsum("kdd->kd", full),
        "spherical": np.einsum("kdd->k", full) / X.shape[1],
    }[covariance_type]
    return weights, means, covariances


def assert_close(a: SufficientStatistics, b: SufficientStatistics, rtol: float = 1e-10) -> None:
    assert a.n_rows == b.n_rows
    for name in FIELDS:
        scale = np.max(np.abs(getattr(b, name)), initial=0.0)
        np.testing.assert_allclose(
            getattr(a, name), getattr(b, name), rtol=rtol, atol=rtol * scale, err_msg=name
        )


@given(mixtures(), seeds, st.integers(1, 50))
def test_densities_and_responsibilities_are_scipys(
    parameters: Parameters, seed: int, n: int
) -> None:
    X = np.random.default_rng(seed).normal(scale=2.0, size=(n, parameters.n_features))
    joint = textbook_joint(X, parameters)
    np.testing.assert_allclose(log_density(X, parameters), logsumexp(joint, axis=1), rtol=1e-9)
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(responsibilities(X, parameters), expected, atol=1e-9)
    scores = score_rows(X, parameters)
    np.testing.assert_array_equal(scores.labels, labels(X, parameters))
    np.testing.assert_allclose(scores.max_responsibility, expected.max(axis=1), atol=1e-9)


@given(mixtures(), seeds)
def test_one_em_step_is_the_textbooks(parameters: Parameters, seed: int) -> None:
    X = np.random.default_rng(seed).normal(scale=2.0, size=(60, parameters.n_features))
    resp = responsibilities(X, parameters)
    assume(resp.sum(axis=0).min() > 1e-6)  # a component without rows has a law of its own
    found = m_step(parameters, e_step(X, parameters), reg_covar=1e-3)
    expected = textbook_m_step(X, resp, parameters.covariance_type, 1e-3)
    for name, value in zip(("weights", "means", "covariances"), expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-8, atol=1e-10)


@given(covariance_types, seeds)
def test_parameters_of_given_responsibilities_are_the_textbooks(
    covariance_type: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, resp = rng.normal(size=(40, 3)) + 1e3, rng.dirichlet(np.ones(2), size=40)
    found = parameters_from_responsibilities(X, resp, covariance_type, 1e-6)
    expected = textbook_m_step(X, resp, covariance_type, 1e-6)
    for name, value in zip(("weights", "means", "covariances"), expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-7, atol=1e-9)


@given(st.data(), mixtures(), seeds, st.integers(0, 40))
def test_any_chunking_gives_the_same_sums(
    data: st.DataObject, parameters: Parameters, seed: int, n: int
) -> None:
    X = np.random.default_rng(seed).normal(size=(n, parameters.n_features))
    total, start = SufficientStatistics.zero(parameters), 0
    for length in data.draw(cuts(n)):
        total = total + e_step(X[start : start + length], parameters)
        start += length
    assert_close(total, e_step(X, parameters))


@given(mixtures(), seeds)
def test_merging_is_commutative_and_zero_is_neutral(parameters: Parameters, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (e_step(rng.normal(size=(9, parameters.n_features)), parameters) for _ in range(2))
    assert_close(a + b, b + a, rtol=0.0)
    assert_close(SufficientStatistics.zero(parameters) + a, a, rtol=0.0)


@given(mixtures(), seeds)
def test_integer_weights_are_repeated_rows(parameters: Parameters, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, parameters.n_features))
    weight = rng.integers(0, 4, 30)
    weighted, repeated = e_step(X, parameters, weight), e_step(np.repeat(X, weight, 0), parameters)
    assert weighted.sum_weight == weight.sum()
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-10, atol=1e-10
        )


@given(mixtures(), seeds)
def test_a_row_has_the_same_scores_in_any_batch(parameters: Parameters, seed: int) -> None:
    X = np.random.default_rng(seed).normal(size=(20, parameters.n_features))
    together = score_rows(X, parameters)
    alone = [score_rows(X[i : i + 1], parameters) for i in range(20)]
    np.testing.assert_allclose(together.log_density, [s.log_density[0] for s in alone], rtol=1e-12)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_float32_rows_are_summed_in_float64(covariance_type: str) -> None:
    parameters = random_mixture(covariance_type, 3, 4, 1)
    X = (np.random.default_rng(2).normal(size=(5000, 4)) + 3).astype(np.float32)
    found, expected = e_step(X, parameters), e_step(X.astype(np.float64), parameters)
    assert found.sum_xx.dtype == np.float64
    assert_close(found, expected, rtol=0.0)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_tiles_are_seamless(covariance_type: str) -> None:
    parameters = random_mixture(covariance_type, 3, 4, 1)
    n = 2 * tile_rows(3, 4) + 5
    X = np.random.default_rng(3).normal(size=(n, 4))
    weight = np.random.default_rng(4).uniform(0, 2, n)
    plain, weighted = SufficientStatistics.zero(parameters), SufficientStatistics.zero(parameters)
    for i in range(0, n, 1000):
        rows = slice(i, i + 1000)
        plain += e_step(X[rows], parameters)
        weighted += e_step(X[rows], parameters, weight[rows])
    assert_close(plain, e_step(X, parameters))
    assert_close(weighted, e_step(X, parameters, weight))


@pytest.mark.parametrize(("k", "d"), [(1, 1), (16, 16), (8, 200), (64, 64)])
def test_tiles_are_a_constant_of_memory(k: int, d: int) -> None:
    assert tile_rows(k, d) * 8 * (2 * d + 2 * k) <= max(TILE_BYTES, 32 * 8 * (2 * d + 2 * k))


@pytest.mark.parametrize("distance", [40.0, 1e3, 1e6, 1e100])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_a_far_row_has_responsibilities_that_sum_to_one(
    covariance_type: str, distance: float
) -> None:
    parameters = random_mixture(covariance_type, 3, 2, 5)
    resp = responsibilities(np.full((1, 2), distance), parameters)
    assert np.isfinite(resp).all()
    np.testing.assert_allclose(resp.sum(), 1.0, rtol=1e-12)


def test_ties_go_to_the_lowest_index() -> None:
    parameters = Parameters.from_covariances([0.5, 0.5], [[1.0], [-1.0]], [1.0, 1.0], "spherical")
    assert labels(np.zeros((1, 1)), parameters)[0] == 0


@pytest.mark.parametrize("offset", [1e6, 1e8])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_an_offset_costs_no_digits_that_the_data_have(
    covariance_type: str, offset: float, rng: np.random.Generator
) -> None:
    X = rng.normal(size=(500, 3))
    X = (X + offset) - offset  # rows that the offset can hold exactly
    parameters = random_mixture(covariance_type, 2, 3, 4)
    means = (parameters.means + offset) - offset
    parameters = Parameters.from_covariances(
        parameters.weights, means, parameters.covariances, covariance_type
    )
    moved = Parameters.from_covariances(
        parameters.weights, means + offset, parameters.covariances, covariance_type
    )
    here, there = e_step(X, parameters), e_step(X + offset, moved)
    assert_close(there, here, rtol=1e-13)


def test_a_component_without_rows_stays_where_it_is() -> None:
    parameters = Parameters.from_covariances([0.5, 0.5], [[0.0], [1e6]], [[[1.0]], [[2.0]]], "full")
    X = np.random.default_rng(0).normal(size=(50, 1))
    found = m_step(parameters, e_step(X, parameters), 1e-6)
    assert found.weights.tolist() == [1.0, 0.0]
    assert found.means[1, 0] == 1e6
    assert found.covariances[1, 0, 0] == 2.0
    again = m_step(found, e_step(X, found), 1e-6)
    assert np.isfinite(again.means).all()


def test_equal_rows_are_singular_without_reg_covar_and_fit_with_it() -> None:
    parameters = Parameters.from_covariances([1.0], np.zeros((1, 2)), [np.eye(2)], "full")
    statistics = e_step(np.zeros((10, 2)), parameters)
    with pytest.raises(SingularCovarianceError, match="reg_covar"):
        m_step(parameters, statistics, 0.0)
    np.testing.assert_allclose(
        m_step(parameters, statistics, 1e-3).covariances[0], 1e-3 * np.eye(2), atol=1e-12
    )


def test_no_rows_leave_no_statistics() -> None:
    parameters = random_mixture("tied", 2, 3, 0)
    empty = e_step(np.empty((0, 3)), parameters)
    assert_close(empty, SufficientStatistics.zero(parameters), rtol=0.0)
    assert np.isnan(empty.lower_bound)


def test_a_wrong_number_of_features_is_refused() -> None:
    with pytest.raises(ValueError, match="X has 2 features, the mixture has 3"):
        e_step(np.zeros((1, 2)), random_mixture("full", 1, 3, 0))


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_the_size_of_the_statistics_is_known_beforehand(covariance_type: str) -> None:
    parameters = random_mixture(covariance_type, 3, 5, 0)
    zero = SufficientStatistics.zero(parameters)
    assert statistics_bytes(parameters) == sum(
        a.nbytes for a in (zero.sum_resp, zero.sum_x, zero.sum_xx)
    )
