"""Fewer components than there are clusters: which clusters one component is for."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from gmm_dask import GaussianMixture
from gmm_dask.fitting import Maximisation
from gmm_dask.fitting.initial.initialize import prepare
from gmm_dask.fitting.search.ground import Frame, Ground
from gmm_dask.fitting.search.joining import Cells
from gmm_dask.mixture.core.climb import can_climb
from gmm_dask.sampling import ColumnSpread


def distant(n: int, d: int, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of clusters that are some ten standard deviations apart, and the cluster of each."""
    rng = np.random.default_rng(1)
    means = 10 * rng.normal(size=(n_clusters, d))
    labels = rng.integers(n_clusters, size=n)
    return means[labels] + rng.normal(size=(n, d)), labels


def level(rows: np.ndarray, of: np.ndarray, family: str) -> float:
    """The log-likelihood of rows in groups that each have a Gaussian, but for a constant."""
    total = 0.0
    for j in np.unique(of):
        mine = rows[of == j]
        variances = mine.var(axis=0)
        logs = {
            "full": np.linalg.slogdet(np.cov(mine.T, bias=True))[1],
            "diag": np.log(variances).sum(),
            "spherical": len(variances) * np.log(variances.mean()),
        }
        total += len(mine) * (np.log(len(mine)) - logs[family] / 2)
    return float(total)


@pytest.mark.parametrize("family", ["full", "diag", "spherical"])
def test_cells_are_joined_to_the_best_of_all_groupings(family: str) -> None:
    X, truth = distant(1200, 3, 6)
    ready = prepare(X, 1)
    frame = Frame.of(ready.sample, None, family)
    ground = Ground(
        ready.sample, None, family, Maximisation(spread=ColumnSpread.of(X, None)), frame
    )
    rng = np.random.default_rng(0)
    cells = Cells.of(ground, ground.rows, 2, rng)
    assert cells is not None
    assert cells.n_apart > 2
    every = [np.array((0, *others)) for others in product(range(2), repeat=5) if any(others)]
    best = max(level(frame.rows(X), each[truth], family) for each in every)
    assert level(ground.rows, cells.groups(rng), family) == pytest.approx(best, abs=1e-6)


@pytest.mark.skipif(not can_climb("full"), reason="the core is not built")
def test_every_seed_finds_the_best_grouping_of_more_clusters_than_components() -> None:
    X, _ = distant(2000, 4, 10)
    ends = [GaussianMixture(4, random_state=seed).fit(X).score(X) * len(X) for seed in range(3)]
    assert max(ends) - min(ends) < 0.5
