"""Single precision against double: how far a pass may be off, and where it is not used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters, SufficientStatistics, core, m_step
from gmm_dask.mixture.core.arguments import in_single, takes
from tests.mixture.test_screen import drawn
from tests.strategies import random_mixture

KINDS = list(COVARIANCE_FAMILIES)
NAMES = ("n_rows", "sum_weight", "log_likelihood", "sum_resp", "sum_x", "sum_xx")
PER_ROW = 1e-5  # of the log-likelihood
STANDARD_DEVIATIONS = 1e-5  # of a component, that its mean and covariance are off after a step


def single(
    X: np.ndarray, parameters: Parameters, weight: np.ndarray | None = None
) -> SufficientStatistics:
    return core.e_step(X, parameters, weight, precision="single")


def bits(found: SufficientStatistics) -> bytes:
    return b"".join(np.asarray(getattr(found, name)).tobytes() for name in NAMES)


def assert_close(X: np.ndarray, parameters: Parameters, weight: np.ndarray | None = None) -> None:
    """The promise of single precision, for rows of one mixture."""
    found, expected = single(X, parameters, weight), core.e_step(X, parameters, weight)
    assert found.n_rows == expected.n_rows
    assert found.sum_weight == pytest.approx(expected.sum_weight, rel=1e-14)
    assert abs(found.lower_bound - expected.lower_bound) < PER_ROW
    of_rows = expected.sum_weight * parameters.weights.min()
    np.testing.assert_allclose(
        found.sum_resp, expected.sum_resp, rtol=STANDARD_DEVIATIONS, atol=1e-5 * of_rows
    )
    one, other = (m_step(parameters, each, 1e-6) for each in (found, expected))
    large = expected.sum_resp > of_rows / 2  # others are next to nothing, in either precision
    deviations = np.sqrt(np.diagonal(other.dense_covariances(), axis1=1, axis2=2))
    off = np.abs(one.means - other.means) / deviations
    assert off[large].max(initial=0.0) < STANDARD_DEVIATIONS
    sizes = deviations[:, :, None] * deviations[:, None, :]
    off = np.abs(one.dense_covariances() - other.dense_covariances()) / sizes
    assert off[large].max(initial=0.0) < STANDARD_DEVIATIONS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (4, 8), (5, 9), (4, 17), (3, 33)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_is_that_of_double_to_a_hundred_thousandth(
    kind: str, k: int, d: int, dtype: type
) -> None:
    parameters = random_mixture(kind, k, d, 0)
    assert in_single(parameters) is not None
    X = drawn(parameters, 2500).astype(dtype)
    assert_close(X, parameters)
    assert_close(X, parameters, np.random.default_rng(1).integers(0, 4, len(X)) * 0.5)
    assert single(X, parameters).log_likelihood != core.e_step(X, parameters).log_likelihood


@settings(max_examples=40)
@given(
    st.sampled_from(KINDS), st.integers(1, 6), st.integers(1, 20), st.integers(0, 300),
    st.floats(0.01, 30), st.floats(-1e7, 1e7), st.floats(-6, 6), st.integers(0, 10_000),
)  # fmt: skip
def test_any_mixture_and_rows(
    kind: str, k: int, d: int, n: int, spread: float, offset: float, power: float, seed: int
) -> None:
    """Wherever the rows lie and whatever their unit."""
    start, scale = random_mixture(kind, k, d, seed), 10.0**power
    parameters = Parameters.from_covariances(
        start.weights, (start.means + offset) * scale, start.covariances * scale**2, kind
    )
    X = (np.random.default_rng(seed).normal(scale=spread, size=(n, d)) + offset) * scale
    found, expected = single(X, parameters), core.e_step(X, parameters)
    assert abs(found.log_likelihood - expected.log_likelihood) <= 1e-6 * n * (
        d + abs(expected.lower_bound) if n else 0
    )
    np.testing.assert_allclose(found.sum_resp, expected.sum_resp, atol=1e-4 * max(1, n))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_an_offset_costs_what_it_costs_the_rows(kind: str, offset: float) -> None:
    """Rows in float64 lose nothing to it, and rows in float32 what they had lost before."""
    start = random_mixture(kind, 4, 16, 0)
    parameters = Parameters.from_covariances(
        start.weights, start.means + offset, start.covariances, kind
    )
    X = drawn(start, 2000) + offset
    assert_close(X, parameters)
    assert_close(X.astype(np.float32), parameters)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_a_mixture_that_rounding_would_change_is_computed_in_double(kind: str) -> None:
    one = random_mixture(kind, 3, 6, 0)
    away = Parameters.from_covariances(
        one.weights, np.arange(3)[:, None] * np.full(6, 1e6), one.covariances, kind
    )
    root = np.linalg.cholesky(one.dense_covariances())
    root[:, 5] = root[:, 4] + 1e-4 * np.eye(6)[5]
    covariances = root @ root.swapaxes(1, 2)
    thin = Parameters.from_covariances(
        one.weights, one.means, covariances if kind == "full" else covariances[0], kind
    )
    small = Parameters.from_covariances(
        one.weights, one.means * 1e-20, one.covariances * 1e-40, kind
    )
    wide = random_mixture(kind, 2, 130, 0)
    for parameters in (away, thin, small, wide):
        assert in_single(parameters) is None
        X = drawn(parameters, 700)
        assert bits(single(X, parameters)) == bits(core.e_step(X, parameters))


@pytest.mark.parametrize("kind", KINDS)
def test_far_rows_are_computed_in_double(kind: str) -> None:
    """And those that are too far for that by NumPy, as ever; the last row of a tile, too."""
    parameters = random_mixture(kind, 3, 9, 0)
    assert in_single(parameters) is not None
    rows, chosen = drawn(parameters, 600), [3, 64, 599]
    for factors, names in (([1e2, 1e3, 1e4], NAMES), ([1e4, 1e10, 1e155], NAMES[:4])):
        X = rows.copy()
        X[chosen] *= np.array(factors)[:, None]
        near = single(np.delete(X, chosen, axis=0), parameters)
        expected = near + core.e_step(X[chosen], parameters)
        found = single(X, parameters)
        for name in names:
            value = np.asarray(getattr(expected, name))
            close = {"rtol": 1e-6, "atol": 1e-6 * np.abs(value).max()}
            np.testing.assert_allclose(getattr(found, name), value, err_msg=name, **close)
        assert np.isfinite(found.sum_x).all()


def test_where_most_rows_are_far_all_are_computed_in_double() -> None:
    parameters = random_mixture("full", 3, 9, 0)
    X = drawn(parameters, core.FAR_ROWS + 100) + 1e3
    assert bits(single(X, parameters)) == bits(core.e_step(X, parameters))


def test_weights_beyond_float32_are_computed_in_double() -> None:
    parameters = random_mixture("full", 3, 4, 0)
    X = drawn(parameters, 300)
    weight = np.geomspace(1e-50, 1e50, 300)
    assert not takes(weight)
    assert bits(single(X, parameters, weight)) == bits(core.e_step(X, parameters, weight))
    weight[:] = 0.0
    assert takes(weight)
    assert single(X, parameters, weight).sum_weight == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_components_of_any_weight_keep_their_rows(kind: str) -> None:
    """What is left out of reach is measured by the smallest of them."""
    parameters = random_mixture(kind, 4, 13, 0)
    small = replace(parameters, weights=np.array([1e-6, 0.5 - 1e-6, 0.25, 0.25]))
    empty = replace(parameters, weights=np.array([0.0, 0.5, 0.25, 0.25]))
    X = drawn(parameters, 3000)
    for each in (small, empty):
        found, expected = single(X, each), core.e_step(X, each)
        np.testing.assert_allclose(found.sum_resp, expected.sum_resp, rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_threads_and_any_layout_give_the_same_bits(kind: str) -> None:
    parameters = random_mixture(kind, 4, 16, 0)
    X = drawn(parameters, 5000).astype(np.float32)
    wanted = bits(single(X, parameters))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: bits(single(X, parameters)), range(8))) == {wanted}
    assert bits(single(X.astype(np.float64), parameters)) == wanted


@settings(max_examples=40)
@given(st.sampled_from(["full", "tied"]), st.integers(2, 12), st.floats(-3, 0), st.integers(0, 99))
def test_covariances_stay_positive_definite(kind: str, d: int, power: float, seed: int) -> None:
    """However nearly a column depends on the others; to a fiftieth in every direction.

    A row moves by SAFE standard deviations, its square by twice as many times its distance, and
    its responsibility by SAFE times its distance: at a distance of 6 that is a fiftieth in all.
    """
    one = random_mixture(kind, 2, d, seed)
    mixing = np.eye(d)
    mixing[:, -1], mixing[-1, -1] = 1.0, 10.0**power
    covariances = mixing.T @ one.dense_covariances() @ mixing
    parameters = Parameters.from_covariances(
        one.weights, one.means @ mixing, covariances if kind == "full" else covariances[0], kind
    )
    X = drawn(parameters, 500, seed)
    sums, wanted = single(X, parameters), core.e_step(X, parameters)
    assert in_single(parameters) is not None or bits(sums) == bits(wanted)
    found, expected = m_step(parameters, sums, 0.0), m_step(parameters, wanted, 0.0)
    off = found.dense_covariances() - expected.dense_covariances()
    for j in range(2):
        factor = parameters.dense_factor(j)
        assert np.abs(factor.T @ off[j] @ factor).max() < 2e-2
