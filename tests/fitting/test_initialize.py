"""Starts: reproducible, indifferent to scale, and as given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gmm_dask.errors import DataError, SettingsError
from gmm_dask.fitting import INIT_METHODS, Given, Maximisation, initialize
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters
from tests.conftest import Blobs

SEED = np.random.SeedSequence(3)


def begin(
    X: np.ndarray,
    k: int,
    covariance_type: str,
    maximise: Maximisation | None = None,
    **options: Any,
) -> Parameters:
    return initialize(X, k, covariance_type, maximise or Maximisation(), **options).parameters


@pytest.mark.parametrize("method", list(INIT_METHODS))
@pytest.mark.parametrize("covariance_type", list(COVARIANCE_FAMILIES))
def test_the_same_seed_gives_the_same_bits(method: str, covariance_type: str, blobs: Blobs) -> None:
    starts = [begin(blobs.X, 3, covariance_type, init_params=method, seed=SEED) for _ in range(2)]
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(starts[0], name), getattr(starts[1], name))
    other = begin(blobs.X, 3, covariance_type, init_params=method, seed=np.random.SeedSequence(4))
    if method != "kmeans":
        assert not np.array_equal(other.means, starts[0].means)


@pytest.mark.parametrize("method", ["kmeans", "k-means++", "random_from_data"])
def test_a_column_of_large_scale_does_not_decide_alone(method: str, blobs: Blobs) -> None:
    scale = np.array([1.0, 1e6, 1e-6, 1.0])
    here = begin(blobs.X, 3, "full", Maximisation(0), init_params=method, seed=SEED)
    there = begin(blobs.X * scale, 3, "full", Maximisation(0), init_params=method, seed=SEED)
    np.testing.assert_allclose(there.means / scale, here.means, rtol=1e-8)
    np.testing.assert_allclose(there.weights, here.weights, rtol=1e-12)


def test_kmeans_finds_separated_groups(blobs: Blobs) -> None:
    X = blobs.X + 40.0 * blobs.component[:, None]
    start = begin(X, 3, "full", seed=SEED)
    truth = np.sort(np.bincount(blobs.component) / len(X))
    np.testing.assert_allclose(np.sort(start.weights), truth, atol=1e-12)


@pytest.mark.parametrize("method", ["kmeans", "k-means++", "random_from_data"])
def test_rows_of_weight_zero_found_no_component(method: str, blobs: Blobs) -> None:
    X = np.concatenate([blobs.X, np.full((50, 4), 1e4)])
    weight = np.concatenate([np.ones(len(blobs.X)), np.zeros(50)])
    start = begin(X, 3, "full", init_params=method, seed=SEED, sample_weight=weight)
    assert np.abs(start.means).max() < 100


def test_given_values_are_kept(blobs: Blobs) -> None:
    means = np.arange(12.0).reshape(3, 4)
    start = begin(blobs.X, 3, "diag", seed=SEED, given=Given(means=means))
    np.testing.assert_array_equal(start.means, means)
    weights, precisions = np.array([0.2, 0.3, 0.5]), np.full((3, 4), 4.0)
    complete = begin(
        np.empty((0, 4)), 3, "diag", seed=SEED, given=Given(weights, means, precisions)
    )
    assert isinstance(complete, Parameters)
    np.testing.assert_array_equal(complete.weights, weights)
    np.testing.assert_allclose(complete.covariances, 0.25)


def test_fewer_rows_than_components_is_an_error_with_the_numbers() -> None:
    with pytest.raises(DataError, match="2 rows of positive weight cannot start 3 components"):
        begin(np.zeros((2, 1)), 3, "full", seed=SEED)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"kmeans, k-means\+\+, random"):
        begin(np.zeros((5, 1)), 3, "full", init_params="hc", seed=SEED)


def test_a_constant_column_starts_with_regularised_variance() -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    X[:, 1] = 7.0
    start = begin(X, 2, "full", Maximisation(1e-4), seed=SEED)
    np.testing.assert_allclose(start.covariances[:, 1, 1], 1e-4, rtol=1e-9)


@pytest.mark.parametrize("method", list(INIT_METHODS))
def test_a_start_knows_neither_the_order_of_rows_nor_whether_they_are_weighted(
    method: str, blobs: Blobs
) -> None:
    rng = np.random.default_rng(8)
    weight = rng.integers(0, 4, len(blobs.X)).astype(float)
    repeated = np.repeat(blobs.X, weight.astype(int), axis=0)
    order = rng.permutation(len(blobs.X))
    weighted = begin(
        blobs.X[order], 3, "full", init_params=method, seed=SEED, sample_weight=weight[order] / 7
    )
    plain = begin(rng.permutation(repeated), 3, "full", init_params=method, seed=SEED)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(plain, name), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("method", list(INIT_METHODS))
def test_few_different_rows_of_much_weight_start_more_components_than_they_are(
    method: str,
) -> None:
    X, weight = np.array([[0.0, 1.0], [5.0, 2.0]]), np.array([6.0, 4.0])
    options: dict[str, Any] = {"init_params": method, "seed": SEED}
    spread = Maximisation(1e-3)
    weighted = begin(X, 5, "diag", spread, sample_weight=weight, **options)
    repeated = begin(np.repeat(X, [6, 4], axis=0), 5, "diag", spread, **options)
    assert weighted.n_components == 5
    np.testing.assert_allclose(weighted.means, repeated.means, rtol=1e-10)
    np.testing.assert_allclose(weighted.weights @ weighted.means, [2.0, 1.4])


def test_rows_with_missing_values_start_a_fit(blobs: Blobs) -> None:
    X = blobs.X + 40.0 * blobs.component[:, None]
    gaps = X.copy()
    gaps[np.random.default_rng(1).uniform(size=X.shape) < 0.15] = np.nan
    found = initialize(gaps, 3, "full", Maximisation(), seed=SEED)
    assert found.events == ()
    truth = begin(X, 3, "full", seed=SEED)
    order = [int(np.abs(found.parameters.means - m).sum(axis=1).argmin()) for m in truth.means]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found.parameters.means[order], truth.means, atol=0.5)
    spread = np.einsum("kdd->kd", found.parameters.covariances)[order]
    np.testing.assert_array_less(np.einsum("kdd->kd", truth.covariances) * 0.7, spread)
