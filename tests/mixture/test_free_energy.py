"""Statistics taken under other parameters: moved to other means, and the bound they give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    Parameters,
    SufficientStatistics,
    e_step,
    estimate,
    missing,
    responsibilities,
)
from gmm_dask.mixture.free_energy import about, gain, implied, times
from tests.mixture.test_laws import E_STEPS, rows_for
from tests.mixture.test_steps import assert_close
from tests.strategies import mixtures, random_mixture, seeds


def shifted(parameters: Parameters, by: float) -> Parameters:
    return Parameters(
        parameters.weights,
        parameters.means + by,
        parameters.covariances,
        parameters.precisions_cholesky,
        parameters.covariance_type,
    )


@pytest.mark.parametrize("kind", list(E_STEPS))
@given(mixtures(), seeds)
def test_sums_moved_there_and_back_are_what_they_were(
    kind: str, parameters: Parameters, seed: int
) -> None:
    found = E_STEPS[kind](rows_for(parameters, seed, kind), parameters)
    away = shifted(parameters, 3.0)
    there = about(found, parameters.means, away)
    assert_close(about(there, away.means, parameters), found)


@given(mixtures(), seeds)
def test_moved_sums_are_those_of_the_rows_about_the_other_means(
    parameters: Parameters, seed: int
) -> None:
    """One component holds every row whatever its mean: so both can be asked for directly."""
    one = random_mixture(parameters.covariance_type, 1, parameters.n_features, seed)
    other = shifted(one, 0.7)
    X = rows_for(one, seed, "complete")
    moved, direct = about(e_step(X, one), one.means, other), e_step(X, other)
    for name in ("sum_resp", "sum_x", "sum_xx"):
        np.testing.assert_allclose(
            getattr(moved, name), getattr(direct, name), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_an_offset_of_the_data_costs_no_digits(
    covariance_type: str, rng: np.random.Generator
) -> None:
    """Means at 1e8 differ by exactly what they are moved by."""
    near = random_mixture(covariance_type, 3, 2, 0)
    near = shifted(near, 0.0)
    X, offset = np.round(rng.normal(size=(300, 2)) * 1024) / 1024, 2.0**27
    start = np.round(near.means * 1024) / 1024
    near = Parameters(
        near.weights, start, near.covariances, near.precisions_cholesky, covariance_type
    )
    far, step = shifted(near, offset), 0.25
    expected = about(e_step(X, near), near.means, shifted(near, step))
    found = about(e_step(X + offset, far), far.means, shifted(far, step))
    assert_close(found, expected)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_equal_rows_reached_from_afar_keep_a_variance_that_is_not_negative(
    covariance_type: str,
) -> None:
    X = np.full((50, 2), 0.1)
    far = shifted(random_mixture(covariance_type, 1, 2, 1), 1e4)
    found = e_step(X, far)
    arrived = estimate(far, found, 0.0)
    at = Parameters(
        arrived.weights, arrived.means, far.covariances, far.precisions_cholesky, covariance_type
    )
    there = estimate(at, about(found, far.means, at), 0.0)
    variances = at.family.variances(there.covariances, 1, 2)
    assert (variances >= 0).all()
    assert (variances <= 1e-4).all()  # of squares of 1e8 this is rounding


@given(mixtures(), seeds)
def test_rows_as_the_mixture_says_lead_to_it(parameters: Parameters, seed: int) -> None:
    other = random_mixture(
        parameters.covariance_type, parameters.n_components, parameters.n_features, seed
    )
    sums = implied(parameters, 1000.0, other)
    whole = SufficientStatistics(1000, 1000.0, 0.0, sums.sum_resp, sums.sum_x, sums.sum_xx)
    found = estimate(other, whole, 0.0)
    for name in ("weights", "means", "covariances"):
        value = getattr(parameters, name)
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-8, atol=1e-8)
    nothing = sums + times(-1.0, sums)
    for each in (nothing.sum_resp, nothing.sum_x, nothing.sum_xx):
        assert not each.any()


def log_joint(X: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Log of weight times density, by inverses and determinants."""
    d = parameters.n_features
    inverses = np.linalg.inv(parameters.dense_covariances())
    each = zip(parameters.weights, parameters.means, inverses, strict=True)
    found = [
        np.log(weight)
        - 0.5 * np.einsum("nd,de,ne->n", X - mean, inverse, X - mean)
        + 0.5 * np.linalg.slogdet(inverse)[1]
        - 0.5 * d * np.log(2 * np.pi)
        for weight, mean, inverse in each
    ]
    return np.stack(found, axis=1)


@given(mixtures(), seeds)
def test_the_gain_is_that_of_the_expected_log_density(parameters: Parameters, seed: int) -> None:
    """By hand; and with it the bound F is never above the log-likelihood."""
    k, d, kind = parameters.n_components, parameters.n_features, parameters.covariance_type
    other = random_mixture(kind, k, d, seed)
    X = rows_for(parameters, seed, "complete")
    found, resp = e_step(X, parameters), responsibilities(X, parameters)
    expected = (resp * (log_joint(X, other) - log_joint(X, parameters))).sum()
    assert gain(found, parameters, other) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    likelihood = e_step(X, other).log_likelihood
    assert found.log_likelihood + expected <= likelihood + 1e-8 * abs(likelihood)


@given(mixtures(max_features=3), seeds)
def test_with_values_missing_it_is_a_bound_too(parameters: Parameters, seed: int) -> None:
    other = random_mixture(
        parameters.covariance_type, parameters.n_components, parameters.n_features, seed
    )
    X = rows_for(parameters, seed, "missing")
    found = missing.e_step(X, parameters)
    bound = found.log_likelihood + gain(found, parameters, other)
    likelihood = missing.e_step(X, other).log_likelihood
    assert bound <= likelihood + 1e-8 * abs(likelihood)
