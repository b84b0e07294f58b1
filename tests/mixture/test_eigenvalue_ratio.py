"""Covariances within a ratio of eigenvalues: no other ones within it have a greater likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from gmm_dask import GaussianMixture
from gmm_dask.errors import SettingsError
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.covariance.factors import within_ratio


def loss(values: np.ndarray, rows: np.ndarray, held: np.ndarray) -> float:
    """Minus twice the expected log-likelihood, but for what does not depend on the variances."""
    return float((rows[:, None] * (np.log(held) + values / held)).sum())


def brute_force(values: np.ndarray, rows: np.ndarray, ratio: float) -> float:
    """The least loss of clipped variances: the best of a fine grid of bounds, made finer."""

    def at(log_m: float) -> float:
        return loss(values, rows, np.clip(values, np.exp(log_m), ratio * np.exp(log_m)))

    least = max(float(values[values > 0].min()) / ratio, 1e-30)
    grid = np.linspace(np.log(least) - 1, np.log(values.max()) + 1, 400)
    best = int(np.argmin([at(each) for each in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return min(at(grid[best]), minimize_scalar(at, bounds=bounds, method="bounded").fun)


@pytest.mark.parametrize("seed", range(12))
def test_the_bounds_are_those_that_a_search_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    values = np.exp(rng.normal(scale=4, size=shape))
    values[rng.random(shape) < 0.1] = 0
    values.flat[0] = 1.0
    rows = rng.uniform(0.1, 100, size=shape[0])
    ratio = float(np.exp(rng.uniform(0, 6)))
    held = within_ratio(values, rows, ratio)
    assert held.max() <= ratio * held.min() * (1 + 1e-12)
    assert loss(values, rows, held) <= brute_force(values, rows, ratio) + 1e-6


def test_what_is_within_the_ratio_stays_as_it_is_and_empty_components_say_nothing() -> None:
    values, rows = np.array([[1.0, 2.0], [3.0, 12.0]]), np.array([5.0, 7.0])
    assert within_ratio(values, rows, 12.0) is values
    assert within_ratio(np.zeros((2, 2)), rows, 12.0).max() == 0
    empty = within_ratio(np.array([[1.0, 2.0], [1e-9, 1e9]]), np.array([5.0, 0.0]), 2.0)
    np.testing.assert_array_equal(empty, [[1, 2], [1, 2]])


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_no_covariances_within_the_ratio_are_better(name: str) -> None:
    """Random ones near it and far away, of which some are bound to be better where it is not."""
    rng, k, d, ratio = np.random.default_rng(1), 3, 2, 5.0
    variances = np.array([1e4, 1e-2]) if name != "spherical" else np.ones(2)
    roots = rng.normal(size=(k, d, d)) * np.array([3.0, 0.1, 1.0])[:, None, None]
    scatter = (roots @ roots.swapaxes(1, 2)) * np.sqrt(np.outer(variances, variances))
    rows = np.array([30.0, 5.0, 20.0])
    found = of(name, scatter, rows).limited(ratio, rows, variances)
    scaled = found.dense() / np.sqrt(np.outer(variances, variances))
    eigenvalues = np.linalg.eigvalsh(scaled)
    assert eigenvalues.max() == pytest.approx(ratio * eigenvalues.min())
    least = likelihood_loss(found.dense(), scatter, rows)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(100):
            near = scaled + scale * symmetric(rng, k, d) * scaled.max()
            other = within(name, near, rows, ratio)
            if other is not None:
                other = other * np.sqrt(np.outer(variances, variances))
                assert likelihood_loss(other, scatter, rows) >= least - 1e-9


def of(name: str, scatter: np.ndarray, rows: np.ndarray) -> object:
    """The family whose covariances have the greatest likelihood without bounds."""
    if name == "full":
        values = scatter
    elif name == "tied":
        values = np.tensordot(rows / rows.sum(), scatter, axes=1)
    else:
        values = np.diagonal(scatter, axis1=1, axis2=2)
        values = values.mean(axis=1) if name == "spherical" else values
    return family(name)(3, 2, values)


def symmetric(rng: np.random.Generator, k: int, d: int) -> np.ndarray:
    noise = rng.normal(size=(k, d, d))
    return noise + noise.swapaxes(1, 2)


def within(name: str, matrices: np.ndarray, rows: np.ndarray, ratio: float) -> np.ndarray | None:
    """Covariances of the family, clipped to some bounds of that ratio; None if they are none."""
    covariances = of(name, matrices, rows)
    dense = np.broadcast_to(covariances.dense(), matrices.shape)
    values, vectors = np.linalg.eigh(dense)
    least = np.median(values)
    if least <= 0:
        return None
    values = np.clip(values, least / np.sqrt(ratio), least * np.sqrt(ratio))
    return (vectors * values[:, None, :]) @ vectors.swapaxes(1, 2)


def likelihood_loss(covariances: np.ndarray, scatter: np.ndarray, rows: np.ndarray) -> float:
    covariances = np.broadcast_to(covariances, scatter.shape)
    traces = np.einsum("kij,kji->k", np.linalg.inv(covariances), scatter)
    return float(rows @ (np.linalg.slogdet(covariances)[1] + traces))


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_a_fit_keeps_the_ratio_and_its_log_likelihood_rises(name: str) -> None:
    rng = np.random.default_rng(3)
    X = np.vstack(
        [rng.normal(size=(200, 3)), rng.normal(5, 1, size=(60, 3)), [[9.0, 9.0, 9.0]] * 4]
    )
    X *= np.array([1.0, 100.0, 1e-3]) if name != "spherical" else 1.0
    settings: dict[str, Any] = {"covariance_type": name, "random_state": 0, "tol": 1e-4}
    settings["max_iter"] = 300
    # From plain starts: a search leaves optima on a few equal rows alone, or tells of them.
    settings["init_params"] = "kmeans"
    free = GaussianMixture(4, reg_covar=0, **settings)
    bound = GaussianMixture(4, reg_covar=0, eigenvalue_ratio=4.0, **settings).fit(X)
    assert np.diff(bound.lower_bounds_).min() > -1e-10
    covariances = family(name)(4, 3, bound.covariances_)
    spread = X.std(axis=0) if name != "spherical" else np.ones(3)
    values = np.linalg.eigvalsh(covariances.dense() / np.outer(spread, spread))
    assert values.max() <= 4.0 * values.min() * (1 + 1e-9)
    if name != "tied":  # whose likelihood has a bound
        assert free.fit(X).events_
        assert not bound.events_


def test_of_low_rank_covariances_there_is_none() -> None:
    X = np.random.default_rng(0).normal(size=(50, 4))
    with pytest.raises(SettingsError, match="eigenvalue_ratio"):
        GaussianMixture(2, covariance_type="low_rank:1", eigenvalue_ratio=10.0).fit(X)
