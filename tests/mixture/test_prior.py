"""MAP estimates: the mode of the log-posterior, found by an optimiser that knows no formulas."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import dirichlet, invgamma, invwishart, multivariate_normal, norm

from gmm_dask.errors import SettingsError
from gmm_dask.fitting import Maximisation, fit
from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    Parameters,
    Prior,
    PriorSettings,
    e_step,
    m_step,
)
from tests.strategies import mixtures, random_mixture, seeds

BELIEFS = PriorSettings(1.7, 3.0, 6.5, 0.4)


def resolved(d: int, beliefs: PriorSettings = BELIEFS) -> Prior:
    prior = beliefs.resolve(np.linspace(-1, 1, d), np.linspace(0.5, 2, d))
    assert prior is not None
    return prior


def textbook_log_prior(parameters: Parameters, prior: Prior) -> float:
    """The log density of the prior by scipy's distributions."""
    k = parameters.n_components
    total = dirichlet.logpdf(parameters.weights, np.full(k, prior.weight_concentration))
    v, nu = prior.variances, prior.degrees_of_freedom
    assert v is not None
    kind, covariances = parameters.covariance_type, parameters.covariances
    if kind == "full":
        total += sum(invwishart.logpdf(S, nu, np.diag(v)) for S in covariances)
    elif kind == "tied":
        total += invwishart.logpdf(covariances, nu, np.diag(v))
    elif kind == "diag":
        total += sum(invgamma.logpdf(s, nu / 2, scale=v / 2).sum() for s in covariances)
    else:
        total += sum(invgamma.logpdf(s, nu / 2, scale=v.mean() / 2) for s in covariances)
    for mean, S in zip(parameters.means, parameters.dense_covariances(), strict=True):
        total += multivariate_normal.logpdf(mean, prior.mean, S / prior.mean_precision)
    return float(total)


@given(mixtures(max_features=3), seeds)
def test_the_log_prior_is_scipys_up_to_a_constant(here: Parameters, seed: int) -> None:
    k, d = here.means.shape
    there = random_mixture(here.covariance_type, k, d, seed)
    prior = resolved(d)
    difference = prior.log_density(there) - prior.log_density(here)
    expected = textbook_log_prior(there, prior) - textbook_log_prior(here, prior)
    assert difference == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_the_m_step_is_where_the_expected_log_posterior_is_largest(covariance_type: str) -> None:
    start = random_mixture(covariance_type, 2, 2, 3)
    X = np.random.default_rng(4).normal(size=(30, 2))
    resp = np.exp(log_resp(X, start))
    prior = resolved(2)
    found = m_step(start, e_step(X, start), 0.0, prior)

    def expected_log_posterior(p: Parameters) -> float:
        joint = np.log(p.weights) + np.stack(
            [
                multivariate_normal(m, S).logpdf(X)
                for m, S in zip(p.means, p.dense_covariances(), strict=True)
            ],
            axis=1,
        )
        return float((resp * joint).sum() + textbook_log_prior(p, prior))

    best = expected_log_posterior(found)
    rng, scale = np.random.default_rng(5), 1e-3
    for _ in range(200):
        other = perturbed(found, rng, scale)
        assert expected_log_posterior(other) < best + 1e-12
    # And it is stationary: the loss is of second order.
    loss = [best - expected_log_posterior(perturbed(found, rng, 1e-5)) for _ in range(50)]
    assert max(loss) < 1e-6


def log_resp(X: np.ndarray, parameters: Parameters) -> np.ndarray:
    from gmm_dask.mixture import responsibilities

    return np.log(responsibilities(X, parameters))


def perturbed(p: Parameters, rng: np.random.Generator, scale: float) -> Parameters:
    weights = p.weights * np.exp(scale * rng.normal(size=p.weights.shape))
    means = p.means + scale * rng.normal(size=p.means.shape)
    noise = scale * rng.normal(size=p.covariances.shape)
    if p.covariance_type in ("full", "tied"):
        root = np.linalg.cholesky(p.covariances) + np.tril(noise)
        covariances = root @ root.swapaxes(-1, -2)
    else:
        covariances = p.covariances * np.exp(noise)
    return Parameters.from_covariances(
        weights / weights.sum(), means, covariances, p.covariance_type
    )


@given(mixtures(max_components=3, max_features=3), seeds)
def test_the_log_posterior_never_falls(start: Parameters, seed: int) -> None:
    X = np.random.default_rng(seed).normal(scale=2.0, size=(60, start.n_features))
    prior = resolved(start.n_features)
    result = fit(partial(e_step, X), start, Maximisation(0, prior=prior), tol=0, max_iter=8)
    assert np.diff(result.lower_bounds).min() > -1e-10 * np.abs(result.lower_bounds).max()


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_without_rows_the_prior_is_all_there_is(covariance_type: str) -> None:
    start = random_mixture(covariance_type, 2, 3, 1)
    far = Parameters.from_covariances(
        start.weights, start.means + np.array([[0.0], [1e4]]), start.covariances, covariance_type
    )
    prior = resolved(3)
    X = np.random.default_rng(2).normal(size=(40, 3))
    found = m_step(far, e_step(X, far), 0.0, prior)
    np.testing.assert_allclose(found.means[1], prior.mean, atol=1e-9)
    assert found.weights[1] == pytest.approx(0.7 / (40 + 2 * 0.7))


def test_a_prior_that_says_nothing_is_none() -> None:
    assert PriorSettings().resolve(np.zeros(2), np.ones(2)) is None


@given(st.integers(1, 5), st.floats(1e-3, 1e3))
def test_the_prior_follows_the_units_of_the_data(d: int, scale: float) -> None:
    rng = np.random.default_rng(d)
    start = random_mixture("full", 2, d, d)
    X = rng.normal(size=(50, d))
    moved = Parameters.from_covariances(
        start.weights, start.means * scale, start.covariances * scale**2, "full"
    )
    here, there = (
        m_step(p, e_step(rows, p), 0.0, BELIEFS.resolve(rows.mean(axis=0), rows.var(axis=0)))
        for p, rows in ((start, X), (moved, X * scale))
    )
    assume(here.weights.min() > 1e-3)
    np.testing.assert_allclose(there.covariances, here.covariances * scale**2, rtol=1e-7)
    np.testing.assert_allclose(there.means, here.means * scale, rtol=1e-7, atol=1e-9 * scale)


@pytest.mark.parametrize(
    ("beliefs", "what"),
    [
        (PriorSettings(weight_concentration=0.5), "at least 1"),
        (PriorSettings(mean_precision=-1.0), "mean_precision_prior is -1.0"),
        (PriorSettings(covariance=0.0), "covariance_prior is 0.0"),
        (PriorSettings(degrees_of_freedom=5.0), "needs covariance_prior"),
        (PriorSettings(covariance=1.0, degrees_of_freedom=0.5), "more than 1"),
        (PriorSettings(covariance=1e307), "variance of column 0, 1, .* smaller"),
        (PriorSettings(mean_precision=1e307), "counts rows, and must be at most"),
        (PriorSettings(weight_concentration=1e307), "counts rows, and must be at most"),
        (PriorSettings(covariance=1.0, degrees_of_freedom=1e307), "must be at most"),
    ],
)
def test_beliefs_out_of_range_are_named(beliefs: PriorSettings, what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        beliefs.resolve(np.zeros(2), np.ones(2))


def test_one_gaussian_is_the_mode_that_an_optimiser_finds() -> None:
    X = np.random.default_rng(7).normal(2.0, 1.5, size=(12, 1))
    prior = PriorSettings(None, 2.0, 4.0, 0.3).resolve(X.mean(axis=0) + 1, X.var(axis=0))
    assert prior is not None
    assert prior.variances is not None
    v, m0 = prior.variances[0], prior.mean[0]

    def loss(theta: np.ndarray) -> float:
        mean, variance = theta[0], np.exp(theta[1])
        return -float(
            norm.logpdf(X, mean, np.sqrt(variance)).sum()
            + invgamma.logpdf(variance, 2.0, scale=v / 2)
            + norm.logpdf(mean, m0, np.sqrt(variance / 2.0))
        )

    best = minimize(loss, np.zeros(2), tol=1e-12)
    start = Parameters.from_covariances([1.0], [[0.0]], [[1.0]], "diag")
    found = m_step(start, e_step(X, start), 0.0, prior)
    assert found.means[0, 0] == pytest.approx(best.x[0], abs=1e-5)
    assert found.covariances[0, 0] == pytest.approx(np.exp(best.x[1]), rel=1e-4)


@given(mixtures(max_features=3), seeds, st.integers(-200, 200))
def test_prior_and_weights_in_another_unit_give_the_same_mode(
    start: Parameters, seed: int, exponent: int
) -> None:
    rng, unit = np.random.default_rng(seed), 2.0**exponent
    X, weight = rng.normal(size=(30, start.n_features)), rng.uniform(size=30)
    prior = resolved(start.n_features)
    there = prior.in_unit(unit)
    plain = m_step(start, e_step(X, start, weight), 0.0, prior)
    found = m_step(start, e_step(X, start, weight / unit), 0.0, there)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(plain, name), rtol=1e-12, atol=1e-14
        )
    assert there.log_density(start) * unit == pytest.approx(prior.log_density(start), rel=1e-12)
