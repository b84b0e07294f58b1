"""Rows beyond what float64 can measure: shares still sum to one and go to the nearest."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, log_density, responsibilities
from tests.parity.high_precision import Exact, posteriors
from tests.strategies import mixtures, random_mixture

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(mixtures(), st.data())
def test_shares_sum_to_one_for_any_finite_row(parameters: Parameters, data: st.DataObject) -> None:
    d = parameters.n_features
    row = np.array(data.draw(st.lists(finite, min_size=d, max_size=d)))
    resp = responsibilities(row[None, :], parameters)
    assert (resp >= 0).all()
    assert resp.sum() == pytest.approx(1.0, abs=1e-12)
    assert not np.isnan(log_density(row[None, :], parameters)).any()


def nearest(row: np.ndarray, parameters: Parameters) -> int:
    """The component of largest density, in 900 digits."""
    with mpmath.workdps(900):
        logs = []
        for w, mean, S in zip(
            parameters.weights, parameters.means, parameters.dense_covariances(), strict=True
        ):
            S = mpmath.matrix(S.tolist())
            D = mpmath.matrix(
                [
                    mpmath.mpf(float(a)) - mpmath.mpf(float(b))
                    for a, b in zip(row, mean, strict=True)
                ]
            )
            q = (D.T * mpmath.inverse(S) * D)[0]
            logs.append(mpmath.log(w) - mpmath.log(mpmath.det(S)) / 2 - q / 2)
        return int(max(range(len(logs)), key=lambda j: logs[j]))


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("size", [1e8, 1e15, 1e16, 1e20, 1e100, 1e155, 1e200, 1e300, 1.7e308])
def test_the_nearest_component_gets_the_row(covariance_type: str, size: float) -> None:
    parameters = random_mixture(covariance_type, 4, 3, 5)
    rng = np.random.default_rng(6)
    for direction in rng.normal(size=(8, 3)):
        row = size * (direction / np.abs(direction).max())
        resp = responsibilities(row[None, :], parameters)[0]
        assert resp.argmax() == nearest(row, parameters)
        assert resp.max() == 1.0


def test_columns_of_extreme_scale_are_compared_in_one_unit() -> None:
    scale = np.array([1e-100, 1e100])
    parameters = Parameters.from_covariances(
        [0.5, 0.5], np.zeros((2, 2)), np.array([[1.0, 4.0], [4.0, 1.0]]) * scale**2, "diag"
    )
    rows = np.array([[1e300, 1e100], [1e-100, 1e300], [0.0, 1.7e308]])
    assert responsibilities(rows, parameters).argmax(axis=1).tolist() == [1, 0, 0]


def test_a_row_between_components_at_both_ends_of_float64() -> None:
    parameters = Parameters.from_covariances(
        [0.5, 0.5], [[-1e308], [1e308]], [1.0, 1.0], "spherical"
    )
    rows = np.array([[1e307], [-1e307], [1.7e308], [-1.7e308]])
    np.testing.assert_array_equal(responsibilities(rows, parameters).argmax(axis=1), [1, 0, 1, 0])


def test_a_component_of_weight_zero_gets_no_far_row() -> None:
    parameters = Parameters.from_covariances([1.0, 0.0], [[0.0], [1e300]], [1.0, 1.0], "spherical")
    np.testing.assert_array_equal(responsibilities(np.array([[1e299]]), parameters), [[1.0, 0.0]])


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
@pytest.mark.parametrize("size", [1e6, 1e8, 1e15, 1e16, 1e100, 1e150, 1e160, 1e300])
def test_components_of_one_covariance_share_a_far_row_by_the_linear_discriminant(
    covariance_type: str, size: float
) -> None:
    """Along their boundary the shares are neither 0 nor 1, however far away the row is."""
    shape = {"full": (3, 2, 2), "tied": (2, 2), "diag": (3, 2), "spherical": (3,)}[covariance_type]
    one = np.eye(2) if len(shape) > 1 and shape[-2:] == (2, 2) else 1.0
    parameters = Parameters.from_covariances(
        [0.5, 0.3, 0.2],
        [[-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]],
        np.broadcast_to(one, shape),
        covariance_type,
    )
    X = np.array([[x, sign * size] for x in (-0.5, 0.0, 0.25, 1.5) for sign in (1, -1)])
    exact = Exact.of(parameters.weights, parameters.means, parameters.dense_covariances())
    expected = posteriors(X, exact)
    assert expected.max() < 0.95
    np.testing.assert_allclose(responsibilities(X, parameters), expected, rtol=0, atol=1e-12)


@settings(max_examples=40)  # each in hundreds of digits
@given(mixtures(), st.floats(2, 300), st.integers(0, 2**32 - 1))
def test_the_shares_of_far_rows_are_exact(parameters: Parameters, power: float, seed: int) -> None:
    direction = np.random.default_rng(seed).normal(size=(4, parameters.n_features))
    X = 10.0**power * direction
    exact = Exact.of(parameters.weights, parameters.means, parameters.dense_covariances())
    # Where two distances are equal but for rounding, the last bits of a factor decide.
    found, expected = responsibilities(X, parameters), posteriors(X, exact)
    assume(expected.max(axis=1).min() == 1 or power < 5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_the_log_density_of_a_far_row_is_that_of_its_component(covariance_type: str) -> None:
    parameters = random_mixture(covariance_type, 3, 2, 4)
    X = np.array([[1e7, 1e7], [-1e20, 3.0], [1e100, -1e100], [1e-3, 0.1]])
    expected = [
        max(
            multivariate_normal(m, S).logpdf(x) + np.log(w)
            for w, m, S in zip(
                parameters.weights, parameters.means, parameters.dense_covariances(), strict=True
            )
        )
        for x in X[:3]
    ]
    np.testing.assert_allclose(log_density(X, parameters)[:3], expected, rtol=1e-9)
