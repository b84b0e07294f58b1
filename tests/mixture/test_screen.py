"""The screen: a distance in a few directions is never more than the whole, and often as much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigh

from gmm_dask.mixture import Parameters, core, steps
from gmm_dask.mixture.core.screen import FEW, MORE, MORE_FROM, SCREENED_FROM, screen_of
from tests.mixture.test_core import assert_same
from tests.strategies import random_mixture

KINDS = ("full", "tied")


def drawn(parameters: Parameters, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k, d = parameters.means.shape
    component = rng.choice(k, n, p=parameters.weights)
    roots = np.linalg.cholesky(parameters.dense_covariances())
    noise = np.einsum("nij,nj->ni", roots[component], rng.normal(size=(n, d)))
    return parameters.means[component] + noise


def apart(kind: str, k: int, d: int, seed: int, distance: float) -> Parameters:
    found = random_mixture(kind, k, d, seed)
    return Parameters.from_covariances(
        found.weights, found.means * distance, found.covariances, kind
    )


def distances(X: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Squared Mahalanobis distances, (n, k)."""
    differences = X[:, None] - parameters.means
    inverses = np.linalg.inv(parameters.dense_covariances())
    return np.einsum("nkd,kde,nke->nk", differences, inverses, differences)


def bounds(X: np.ndarray, parameters: Parameters) -> np.ndarray:
    """What the screen takes for them, (n, k)."""
    screen = screen_of(parameters)
    n = screen.means.shape[1]
    y = ((X - screen.centre) @ screen.directions)[:, :n]
    factors = np.broadcast_to(screen.factors, (len(parameters.weights), n, n))
    return ((np.einsum("nc,kce->nke", y, factors) - screen.offsets) ** 2).sum(axis=-1)


@settings(max_examples=40)
@given(
    st.sampled_from(KINDS), st.integers(2, 20), st.integers(SCREENED_FROM, 40),
    st.floats(0.01, 100), st.integers(0, 10_000),
)  # fmt: skip
def test_it_is_never_farther_than_the_whole(
    kind: str, k: int, d: int, distance: float, seed: int
) -> None:
    parameters = apart(kind, k, d, seed, distance)
    X = np.concatenate([drawn(parameters, 50, seed), 1e3 * drawn(parameters, 20, seed)])
    assert (bounds(X, parameters) <= distances(X, parameters) * (1 + 1e-6) + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 12), (5, 12), (16, 20), (40, 24)])
def test_its_directions_separate_as_much_as_so_many_can(kind: str, k: int, d: int) -> None:
    parameters = random_mixture(kind, k, d, 3)
    weights, deviations = (
        parameters.weights,
        parameters.means - parameters.weights @ parameters.means,
    )
    within = np.einsum("k,kde->de", weights, parameters.dense_covariances())
    between = (deviations.T * weights) @ deviations
    screen = screen_of(parameters)
    n = min(k - 1, FEW if d < MORE_FROM else MORE)
    V = screen.directions[:, :n]
    assert not screen.directions[:, n:].any()
    np.testing.assert_allclose(V.T @ within @ V, np.eye(n), atol=1e-9)
    largest = eigh(between, within, eigvals_only=True)[::-1][:n]
    np.testing.assert_allclose(np.diagonal(V.T @ between @ V), largest, rtol=1e-8)


def test_it_tells_more_than_as_many_columns() -> None:
    parameters = random_mixture("full", 20, 16, 0)
    X, columns = drawn(parameters, 200), slice(0, FEW)
    of_columns = Parameters.from_covariances(
        parameters.weights,
        parameters.means[:, columns],
        parameters.covariances[:, columns, columns],
        "full",
    )
    of_others = distances(X, parameters) > 84  # out of reach of a component
    seen = (bounds(X, parameters) > 84)[of_others].mean()
    assert seen > 1.5 * (distances(X[:, columns], of_columns) > 84)[of_others].mean() > 0


@pytest.mark.parametrize(
    "parameters",
    [
        random_mixture("full", 4, SCREENED_FROM - 1, 0),
        random_mixture("full", 1, 20, 0),
        random_mixture("diag", 4, 20, 0),
        Parameters.from_covariances(
            [0.5, 0.5], np.zeros((2, 20)), [np.eye(20), 4 * np.eye(20)], "full"
        ),
        Parameters.from_covariances([1.0, 0.0], np.eye(2, 20), [np.eye(20)] * 2, "full"),
    ],
    ids=["few columns", "one component", "diag", "one place", "weight 0"],
)
def test_where_it_cannot_help_there_is_none(parameters: Parameters) -> None:
    screen = screen_of(parameters)
    assert screen.directions.shape[1] == screen.means.shape[1] == 0
    X = np.random.default_rng(0).normal(size=(100, parameters.n_features))
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))


@pytest.mark.parametrize(("far", "narrow"), [(1e12, 1e-8), (1e9, 1e-12), (1e3, 1e-9)])
def test_where_rounding_would_decide_a_component_is_always_looked_at(
    far: float, narrow: float
) -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, 16))
    means[0] += far
    covariances = np.stack([np.eye(16)] * 3 + [narrow**2 * np.eye(16)])
    parameters = Parameters.from_covariances(np.full(4, 0.25), means, covariances, "full")
    assert not screen_of(parameters).factors[3].any()
    X = drawn(parameters, 3000)
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))
    np.testing.assert_array_equal(
        core.score_rows(X, parameters).labels, steps.labels(X, parameters)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 12), (20, 16), (12, 33)])
@pytest.mark.parametrize("distance", [0.05, 1.0, 6.0])
def test_sums_and_scores_are_those_of_numpy(kind: str, k: int, d: int, distance: float) -> None:
    """Screened or, where that is not worth its time, left alone: over many tiles."""
    parameters = apart(kind, k, d, 1, distance)
    X = drawn(parameters, 20_001)
    assert_same(core.e_step(X, parameters), steps.e_step(X, parameters))
    found, expected = core.score_rows(X, parameters), steps.score_rows(X, parameters)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.log_density, expected.log_density, rtol=1e-12)
    np.testing.assert_allclose(
        core.responsibilities(X, parameters), steps.responsibilities(X, parameters), atol=1e-11
    )


@pytest.mark.parametrize("distance", [0.05, 1.0, 6.0])
def test_a_rows_scores_do_not_depend_on_the_rows_beside_it(distance: float) -> None:
    parameters = apart("full", 12, 16, 2, distance)
    X = np.concatenate([drawn(parameters, 5000), 50 * drawn(parameters, 200)])
    shuffled = np.random.default_rng(0).permutation(len(X))
    together = core.responsibilities(X, parameters)
    np.testing.assert_array_equal(
        core.responsibilities(X[shuffled], parameters), together[shuffled]
    )
    alone = np.concatenate(
        [core.responsibilities(X[i : i + 1], parameters) for i in range(0, len(X), 40)]
    )
    np.testing.assert_array_equal(alone, together[::40])
