"""K-means: what scikit-learn's does from the same centres, and what a seeding promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from gmm_dask.fitting.initial.kmeans import kmeans, kmeans_plusplus, nearest, settled
from gmm_dask.mixture import core

SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 5), st.integers(1, 6))


def rows(n: int, d: int, seed: int, step: float = 0.0) -> np.ndarray:
    """Rows of two widths; on a grid of that step, where there are many equal ones."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) + 6 * rng.integers(0, 3, (n, 1))
    return np.round(X / step) * step if step else X


def inertia(X: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Weighted squared distances of the rows from the means of their groups."""
    weight = np.ones(len(X)) if weight is None else weight
    found = 0.0
    for j in np.unique(labels):
        mine = labels == j
        mean = np.average(X[mine], axis=0, weights=weight[mine])
        found += float(weight[mine] @ ((X[mine] - mean) ** 2).sum(axis=1))
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_ends_where_scikit_learn_does_from_the_same_centres(seed: int, weighted: bool) -> None:
    X = rows(20_000, 4, seed)
    weight = np.random.default_rng(seed).uniform(0.1, 1.0, len(X)) if weighted else None
    centres = kmeans_plusplus(X, 5, np.random.default_rng(seed), weight)
    mine = settled(X, centres, weight)
    peer = KMeans(5, init=centres, n_init=1, max_iter=50).fit(X, sample_weight=weight).labels_
    assert adjusted_rand_score(mine, peer) > 0.99
    assert inertia(X, mine, weight) == pytest.approx(inertia(X, peer, weight), rel=1e-4)


@given(SHAPES, st.integers(0, 99), st.sampled_from([0.0, 1.0]))
@settings(max_examples=60, deadline=None)
def test_sweeps_never_end_worse_than_the_seeding(
    shape: tuple[int, int, int], seed: int, step: float
) -> None:
    n, d, k = shape
    X = rows(max(n, k), d, seed, step)
    seeds = kmeans_plusplus(X, k, np.random.default_rng(seed))
    before = inertia(X, nearest(X, seeds))
    assert inertia(X, kmeans(X, k, np.random.default_rng(seed))) <= before * (1 + 1e-12) + 1e-12


@given(SHAPES, st.integers(0, 99), st.sampled_from([0.0, 1.0]))
@settings(max_examples=60, deadline=None)
def test_seeds_are_different_rows_while_there_are_some(
    shape: tuple[int, int, int], seed: int, step: float
) -> None:
    n, d, k = shape
    X = rows(max(n, k), d, seed, step)
    seeds = kmeans_plusplus(X, k, np.random.default_rng(seed))
    assert {tuple(row) for row in seeds} <= {tuple(row) for row in X}
    assert len(np.unique(seeds, axis=0)) == min(k, len(np.unique(X, axis=0)))


@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (33, 2, 3), (700, 8, 5), (90, 40, 90)])
@pytest.mark.parametrize("weighted", [False, True])
def test_core_and_numpy_find_the_same_seeds_and_groups(
    n: int, d: int, k: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = rows(n, d, n + d, 1.0 if n < k + 1 else 0.0)  # on a grid some centres have no rows
    weight = np.random.default_rng(n).uniform(0.1, 1.0, n) if weighted else None
    seeds = kmeans_plusplus(X, k, np.random.default_rng(0), weight)
    by_sweeps = [settled(X, seeds, weight, sweeps) for sweeps in (0, 1, 3, 50)]
    monkeypatch.setattr(core, "is_there", lambda: False)
    np.testing.assert_array_equal(kmeans_plusplus(X, k, np.random.default_rng(0), weight), seeds)
    for found, sweeps in zip(by_sweeps, (0, 1, 3, 50), strict=True):
        np.testing.assert_array_equal(settled(X, seeds, weight, sweeps), found)


def test_nearest_is_the_first_of_the_nearest() -> None:
    X, centres = rows(9_000, 3, 0), rows(7, 3, 1)
    distances = ((X[:, None] - centres) ** 2).sum(axis=2)
    assert np.array_equal(nearest(X, centres), distances.argmin(axis=1))
    assert (nearest(X, np.concatenate([centres, centres])) < 7).all()


def test_rows_of_no_weight_are_not_drawn() -> None:
    X = rows(1_000, 2, 0)
    weight = np.where(X[:, 0] > 3, 1.0, 0.0)
    for seed in range(20):
        seeds = kmeans_plusplus(X, 3, np.random.default_rng(seed), weight)
        assert (seeds[:, 0] > 3).all()


def test_a_centre_without_rows_goes_to_the_farthest_row() -> None:
    X = np.concatenate([rows(500, 2, 0), np.full((3, 2), 80.0)])
    beyond = np.array([X[0], X[1], [1e3, 1e3]])
    assert len(np.unique(nearest(X, beyond))) == 2
    found = settled(X, beyond)
    assert (found == 2).tolist() == (X[:, 0] == 80.0).tolist()
