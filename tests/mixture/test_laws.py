"""Laws of one EM step: what the rows, columns, units and weights may do without changing it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    Parameters,
    SufficientStatistics,
    e_step,
    log_density,
    m_step,
    missing,
    responsibilities,
)
from tests.mixture.test_steps import assert_close
from tests.strategies import mixtures, random_mixture, seeds

E_STEPS = {"complete": e_step, "missing": missing.e_step}


def rows_for(parameters: Parameters, seed: int, kind: str, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(scale=2.0, size=(n, parameters.n_features))
    if kind == "missing":
        X[rng.uniform(size=X.shape) < 0.3] = np.nan
    return X


def step(X: np.ndarray, parameters: Parameters, kind: str, weight: np.ndarray | None = None):
    return m_step(parameters, E_STEPS[kind](X, parameters, weight), 1e-6)


def assert_same(found: Parameters, expected: Parameters, rtol: float = 1e-9) -> None:
    for name in ("weights", "means", "covariances"):
        value = getattr(expected, name)
        np.testing.assert_allclose(
            getattr(found, name), value, rtol=rtol, atol=rtol * np.abs(value).max(), err_msg=name
        )


@pytest.mark.parametrize("kind", list(E_STEPS))
@given(mixtures(), seeds)
def test_the_order_of_rows_does_not_matter(kind: str, parameters: Parameters, seed: int) -> None:
    X = rows_for(parameters, seed, kind)
    order = np.random.default_rng(seed).permutation(len(X))
    assert_close(E_STEPS[kind](X[order], parameters), E_STEPS[kind](X, parameters))


@pytest.mark.parametrize("kind", list(E_STEPS))
@given(mixtures(), seeds)
def test_the_order_of_columns_does_not_matter(kind: str, parameters: Parameters, seed: int) -> None:
    X, d = rows_for(parameters, seed, kind), parameters.n_features
    order = np.random.default_rng(seed).permutation(d)
    turned = parameters.marginal(order)
    expected = step(X, parameters, kind)
    assert_same(step(X[:, order], turned, kind), expected.marginal(order))


@pytest.mark.parametrize("kind", list(E_STEPS))
@given(mixtures(), seeds, st.floats(1e-6, 1e6), st.integers(-(10**6), 10**6))
def test_units_and_origin_of_the_columns_do_not_matter(
    kind: str, parameters: Parameters, seed: int, unit: float, origin: int
) -> None:
    X, p = rows_for(parameters, seed, kind), parameters
    # One unit for all columns, which all families allow; a unit per column for full and diag.
    scale = np.full(p.n_features, unit)
    if p.covariance_type in ("full", "diag"):
        scale *= np.random.default_rng(seed).uniform(0.5, 2, p.n_features)
    squared = {
        "full": scale[:, None] * scale, "tied": scale[:, None] * scale, "diag": scale**2,
        "spherical": unit**2,
    }[p.covariance_type]  # fmt: skip
    # Rows that the origin can hold exactly, so that only our arithmetic is at stake.
    X = (X + origin) - origin
    means = (p.means + origin) - origin
    p = Parameters.from_covariances(p.weights, means, p.covariances, p.covariance_type)
    moved = Parameters.from_covariances(
        p.weights, (p.means + origin) * scale, p.covariances * squared, p.covariance_type
    )
    here = m_step(p, E_STEPS[kind](X, p), 0.0)
    there = m_step(moved, E_STEPS[kind]((X + origin) * scale, moved), 0.0)
    np.testing.assert_allclose(there.weights, here.weights, rtol=1e-6, atol=1e-7)
    tolerance = 1e-6 + 1e-15 * abs(origin)  # (X + origin) * scale is rounded once more
    np.testing.assert_allclose(there.means / scale - origin, here.means, rtol=0, atol=tolerance)
    np.testing.assert_allclose(there.covariances / squared, here.covariances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", list(E_STEPS))
@given(mixtures(), seeds, st.floats(1e-300, 1e300))
def test_the_scale_of_the_weights_changes_nothing_but_sums(
    kind: str, parameters: Parameters, seed: int, scale: float
) -> None:
    X = rows_for(parameters, seed, kind)
    weight = np.random.default_rng(seed).uniform(0.1, 2, len(X))
    expected = step(X, parameters, kind, weight)
    assert_same(step(X, parameters, kind, weight * scale), expected)


@pytest.mark.parametrize("kind", list(E_STEPS))
@given(mixtures(), seeds)
def test_a_row_of_weight_zero_is_absent(kind: str, parameters: Parameters, seed: int) -> None:
    X = rows_for(parameters, seed, kind)
    weight = np.random.default_rng(seed).integers(0, 2, len(X)).astype(float)
    weight[0] = 1.0
    X[weight == 0] = 1e200
    assert_same(step(X, parameters, kind, weight), step(X[weight > 0], parameters, kind))


@given(mixtures(), seeds)
def test_merging_is_associative_whatever_the_grouping(parameters: Parameters, seed: int) -> None:
    X = rows_for(parameters, seed, "complete", 36)
    a, b, c = (e_step(part, parameters) for part in np.split(X, 3))
    assert_close((a + b) + c, a + (b + c), rtol=1e-12)


@given(mixtures(), seeds)
def test_a_row_gets_the_same_shares_in_any_batch(parameters: Parameters, seed: int) -> None:
    X = rows_for(parameters, seed, "missing", 20)
    together = missing.responsibilities(X, parameters)
    alone = [missing.responsibilities(row[None, :], parameters)[0] for row in X]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


@given(mixtures(), seeds)
def test_log_likelihoods_of_parts_add_up(parameters: Parameters, seed: int) -> None:
    X = rows_for(parameters, seed, "complete")
    found = e_step(X, parameters)
    assert found.log_likelihood == pytest.approx(log_density(X, parameters).sum(), rel=1e-12)
    np.testing.assert_allclose(
        found.sum_resp, responsibilities(X, parameters).sum(axis=0), rtol=1e-10
    )
    assert isinstance(found, SufficientStatistics)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(bad: float) -> None:
    from gmm_dask.errors import DataError

    weight = np.ones(5)
    weight[3] = bad
    with pytest.raises(DataError, match="negative, NaN or infinite"):
        e_step(np.zeros((5, 2)), random_mixture("full", 1, 2, 0), weight)


@pytest.mark.parametrize("distance", [1e7, 1e8, 1e10])
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_a_mean_that_leaps_leaves_a_mixture_and_the_next_pass_is_exact(
    covariance_type: str, distance: float
) -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(400, 10))
    near = random_mixture(covariance_type, 1, 10, 3)
    far = Parameters.from_covariances(
        [1.0], near.means + distance, near.covariances, covariance_type
    )
    landed = m_step(far, e_step(X, far), 0.0)  # its covariance is rounding; it is a mixture
    settled = m_step(landed, e_step(X, landed), 0.0)
    settled = m_step(settled, e_step(X, settled), 0.0)
    expected = m_step(near, e_step(X, near), 0.0)
    assert_same(settled, expected, rtol=1e-11)
