"""A noise component: uniform over the data's volume, whatever the family, weights and gaps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.spatial import cKDTree

from gmm_dask import GaussianMixture
from gmm_dask.errors import SettingsError
from gmm_dask.fitting.initial.clutter import (
    NEIGHBOURS,
    clustered,
    farthest_of_nearest,
    lacking_noise,
)
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.parameters import Noise
from gmm_dask.mixture.row_arithmetic import RowArithmetic

FAMILIES = ["full", "tied", "diag", "spherical"]


def mixture(family: str, noise: Noise | None) -> Parameters:
    plain = Parameters.from_covariances(
        [0.6, 0.4], [[0.0, 0.0, 0.0], [4.0, 4.0, 0.0]], {
            "full": [np.diag([1.0, 2.0, 0.5]), np.eye(3) + 0.3],
            "tied": np.eye(3) + 0.3,
            "diag": [[1.0, 2.0, 0.5], [0.5, 1.0, 1.0]],
            "spherical": [1.0, 2.0],
        }[family], family,
    )  # fmt: skip
    return Parameters(plain.weights, plain.means, plain.family, noise)


def densities(X: np.ndarray, parameters: Parameters, noise: Noise) -> np.ndarray:
    """Shares times densities of each component and of noise, (n, k + 1), row by row."""
    found = np.empty((len(X), 1 + parameters.n_components))
    for i, row in enumerate(X):
        there = ~np.isnan(row)
        D = (row - parameters.means)[:, there]
        covariances = parameters.dense_covariances()[:, there][:, :, there]
        squares = np.einsum("ki,kij,kj->k", D, np.linalg.inv(covariances), D)
        root = np.sqrt(np.linalg.det(2 * np.pi * covariances))
        gaussian = (1 - noise.share) * parameters.weights * np.exp(-squares / 2) / root
        found[i] = [*gaussian, noise.share / np.prod((noise.upper - noise.lower)[there])]
    return found


@pytest.fixture(name="X")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    clusters = rng.normal(size=(60, 3)) + np.repeat([[0, 0, 0], [4, 4, 0]], 30, axis=0)
    return np.vstack([clusters, rng.uniform(-20, 20, size=(15, 3))])


@pytest.mark.parametrize("kernel", ["numpy", "compiled"])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_sums_and_scores_are_those_of_the_formula(
    X: np.ndarray, family: str, gaps: bool, kernel: str
) -> None:
    noise = Noise(0.15, np.full(3, -8.0), np.array([12.0, 12.0, 9.0]))
    parameters = mixture(family, noise)
    weight = np.random.default_rng(1).uniform(0.5, 2, size=len(X))
    if gaps:
        X[::4, 1] = np.nan
        X[5:30:5, 0] = np.nan
    each = densities(X, parameters, noise)
    density = each.sum(axis=1)
    resp = each / density[:, None]
    arithmetic = RowArithmetic("em" if gaps else "error", kernel)
    found = arithmetic.e_step(X, parameters, weight)
    np.testing.assert_allclose(found.log_likelihood, weight @ np.log(density))
    np.testing.assert_allclose(found.sum_resp, weight @ resp[:, :2])
    np.testing.assert_allclose(found.sum_weight, weight.sum())
    if not gaps:
        moved = [weight * resp[:, j] @ (X - parameters.means[j]) for j in range(2)]
        np.testing.assert_allclose(found.sum_x, moved, atol=1e-12)
    scores = arithmetic.score(X, parameters)
    np.testing.assert_allclose(scores.log_density, np.log(density))
    np.testing.assert_allclose(scores.max_responsibility, resp.max(axis=1))
    best = resp.argmax(axis=1)
    np.testing.assert_array_equal(scores.labels, np.where(best == 2, -1, best))
    assert {-1, 0, 1} == set(scores.labels.tolist())
    np.testing.assert_allclose(arithmetic.responsibilities(X, parameters), resp[:, :2], atol=1e-15)


def test_the_box_keeps_out_gross_outliers_and_is_never_flat() -> None:
    X = np.zeros((100, 3))
    X[:, 0] = np.linspace(0, 1, 100)
    X[:, 2] = X[:, 0]
    X[0, 0], X[1, 2] = 1e6, np.nan
    noise = Noise.over(X, None, 0.1, 1e-6)
    assert noise.upper[0] == 1
    assert noise.upper[1] - noise.lower[1] == pytest.approx(np.sqrt(12e-6))
    assert (noise.lower[2], noise.upper[2]) == (0.0, 1.0)
    heavy = np.ones(100)
    heavy[0] = 1e9  # rows of such a weight are no outliers
    assert Noise.over(X, heavy, 0.1, 1e-6).upper[0] == 1e6


def test_rows_in_dense_places_are_told_from_rows_that_are_scattered() -> None:
    rng = np.random.default_rng(2)
    dense = rng.normal(size=(400, 2)) + 20 * rng.integers(0, 2, size=(400, 1))
    X = np.vstack([dense, rng.uniform(-30, 50, size=(60, 2))])
    found = clustered(X)
    assert np.isin(np.arange(400), found).mean() > 0.97
    assert np.isin(np.arange(400, 460), found).mean() < 0.2


def test_nearest_rows_are_those_of_a_tree_beside_one_that_is_far_away() -> None:
    rows = np.random.default_rng(3).normal(size=(700, 3))
    rows[5], rows[7] = 1e9, rows[6]
    expected = cKDTree(rows).query(rows, NEIGHBOURS + 1)[0][:, -1]
    np.testing.assert_allclose(farthest_of_nearest(rows), expected, rtol=1e-12)


def drawn(seed: int, *, noise: bool, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three to six separated clusters, 10 % noise and 2 % gross outliers; labels, -1."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(3, 7)), int(rng.integers(2, 6))
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 5.0)))
    centres = rng.uniform(-10, 10, (k, d))
    while min(np.linalg.norm(centres[i] - centres[j]) for i in range(k) for j in range(i)) < 6:
        centres = rng.uniform(-10, 10, (k, d))
    X = np.empty((n, d))
    for j in range(k):
        of = labels == j
        root = np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.uniform(0.4, 1.2, d)
        X[of] = centres[j] + rng.normal(size=(of.sum(), d)) @ root.T
    if not noise:
        return X, labels
    low, high = X.min(axis=0), X.max(axis=0)
    away = rng.normal(size=(n // 44, d))
    away *= rng.uniform(3, 20, (len(away), 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    uniform = rng.uniform(low, high, (n * 10 // 88, d))
    X = np.vstack([X, uniform, (low + high) / 2 + away * (high - low)])
    return X, np.concatenate([labels, np.full(len(X) - n, -1)])


def agreement(seed: int) -> tuple[float, float]:
    """Adjusted Rand index of the clustered rows, and how far the share of noise is off."""
    from sklearn.metrics import adjusted_rand_score

    X, labels = drawn(seed, noise=True)
    k = labels.max() + 1
    model = GaussianMixture(k, noise=True, init_params="auto", random_state=0).fit(X)
    of = labels >= 0
    index = adjusted_rand_score(labels[of], model.predict(X)[of])
    return float(index), abs(model.noise_share_ - float(np.mean(~of)))


def test_clusters_are_found_beside_noise_and_gross_outliers() -> None:
    index, error = agreement(0)
    assert index > 0.95
    assert error < 0.03


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*best log-likelihood.*")
def test_clusters_are_found_beside_noise_in_95_per_cent_of_the_seeds() -> None:
    found = np.array([agreement(seed) for seed in range(60)])
    assert np.mean(found[:, 0] >= 0.95) >= 0.95
    assert np.mean(found[:, 1] <= 0.03) >= 0.95


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*best log-likelihood.*")
def test_without_noise_there_is_none_and_labels_are_those_of_the_plain_fit() -> None:
    shares, same = [], []
    for seed in range(60):
        X, labels = drawn(seed, noise=False)
        settings = {"init_params": "auto", "random_state": 0}
        found = GaussianMixture(labels.max() + 1, noise=True, **settings).fit(X)
        plain = GaussianMixture(labels.max() + 1, **settings).fit(X)
        shares.append(found.noise_share_)
        same.append(np.mean(found.predict(X) == plain.predict(X)))
    assert max(shares) < 0.005
    assert np.mean(same) >= 0.995


@pytest.mark.parametrize("gap", [0.0, 1.5])
@pytest.mark.parametrize("n", [500, 3000, 40_000])
def test_there_is_no_noise_in_one_cluster_nor_in_two_that_overlap(n: int, gap: float) -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n, 2)) + gap * rng.integers(0, 2, (n, 1))
    settings = {"init_params": "kmeans", "random_state": 0}
    model = GaussianMixture(1 + (gap > 0), noise=True, **settings).fit(X)
    assert model.noise_share_ < 0.005


def lacking(seed: int, *, noise: bool) -> float:
    """The share of noise that a fit from the truth lacks, of 600 rows."""
    X, labels = drawn(seed, noise=False, n=600)
    k, rng = int(labels.max() + 1), np.random.default_rng(seed)
    means = np.array([X[labels == j].mean(axis=0) for j in range(k)])
    if noise:
        X = np.vstack([X, rng.uniform(X.min(axis=0), X.max(axis=0), (67, X.shape[1]))])
    fitted = GaussianMixture(k, means_init=means, reg_covar=1e-6).fit(X)
    return lacking_noise(X, None, fitted._parameters(), 1e-6, np.random.SeedSequence(seed))


def test_a_fit_that_lacks_noise_is_told_from_one_that_does_not() -> None:
    assert [lacking(seed, noise=False) for seed in range(40)] == [0.0] * 40
    found = [lacking(seed, noise=True) for seed in range(10)]
    assert found == pytest.approx([0.1] * 10, abs=0.04)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_class_says_how_much_noise_there_is(family: str) -> None:
    X, labels = drawn(4, noise=True)
    k = labels.max() + 1
    settings = {"covariance_type": family, "noise": True, "random_state": 1, "reg_covar": 0}
    model = GaussianMixture(k, **settings).fit(X)
    assert np.diff(model.lower_bounds_).min() > -1e-12
    assert 0.05 < model.noise_share_ < 0.3
    assert model.weights_.sum() == pytest.approx(1)
    noisy = model.predict(X) == -1
    assert noisy[labels == -1].mean() > 0.6
    rest = 1 - model.predict_proba(X).sum(axis=1)
    assert ((rest >= 0.5) <= noisy).all()
    assert rest.mean() == pytest.approx(model.noise_share_, abs=0.01)
    plain = GaussianMixture(k, covariance_type=family, random_state=1).fit(X)
    assert model._n_parameters() == plain._n_parameters() + 1
    assert model.bic(X) < plain.bic(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    rows, components = model.sample(20_000)
    assert np.mean(components == -1) == pytest.approx(model.noise_share_, abs=0.01)
    assert np.isfinite(model.score_samples(rows)).all()
    with pytest.raises(SettingsError, match="no noise"):
        model.to_sklearn()
