"""Rows beyond what float64 can measure: shares still sum to one and go to the nearest."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, log_density, responsibilities
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
    """The component of largest density, in 400 digits."""
    with mpmath.workdps(400):
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


# Not tied: there the quadratic terms are equal, and the linear ones vanish beside them.
@pytest.mark.parametrize("covariance_type", sorted({*COVARIANCE_FAMILIES} - {"tied"}))
@pytest.mark.parametrize("size", [1e155, 1e200, 1e300, 1.7e308])
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
