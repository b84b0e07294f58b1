"""K-means: groups of rows to start from. EM of hard assignments and one spherical covariance.

Our own, as importing scikit-learn takes longer than all starts of a fit together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import core
from gmm_dask.mixture.core import groups

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]

MAX_SWEEPS = 50  # what they leave unsettled EM settles, and better
STILL = 1e-4  # of the columns' mean variance: squared movement of all centres that ends the sweeps
BLOCK_ROWS = 1 << 12  # whose products do not depend on BLAS' threads, without the core


def kmeans(X: Array, k: int, rng: np.random.Generator, weight: Array | None = None) -> Labels:
    """The group of each row, (n,); where different rows are few, groups may be empty.

    Parameters
    ----------
    X : (n, d)
        n >= k.
    weight : (n,), optional
        Positive.
    """
    return settled(X, kmeans_plusplus(X, k, rng, weight), weight)


def settled(
    X: Array, centres: Array, weight: Array | None = None, sweeps: int = MAX_SWEEPS
) -> Labels:
    """The group of each row, (n,), after so many sweeps from these centres (Lloyd 1982)."""
    least = STILL * float(X.var(axis=0).mean())
    for _ in range(sweeps):
        before, centres = centres, _moved(X, centres, weight)
        if ((centres - before) ** 2).sum() <= least:
            break
    return nearest(X, centres)


def kmeans_plusplus(
    X: Array, k: int, rng: np.random.Generator, weight: Array | None = None
) -> Array:
    """k rows far from one another, (k, d).

    Each is the best of some that were drawn by squared distance from those before it (Arthur and
    Vassilvitskii 2007, the greedy form of section 5).
    """
    n_trials = 2 + int(np.log(k))
    mass = np.ones(len(X)) if weight is None else weight
    chosen = [int(_drawn(mass, 1, rng)[0])]
    distances = _squared_distances(X, X[chosen], None)[0]
    while len(chosen) < k:
        tried = _drawn(distances if weight is None else weight * distances, n_trials, rng)
        left = _squared_distances(X, X[tried], distances)
        # BLAS would add up by its threads.
        total = left.sum(axis=1) if weight is None else (left * weight).sum(axis=1)
        best = int(total.argmin())
        chosen.append(int(tried[best]))
        distances = left[best]
    return np.asarray(X[chosen])


def nearest(X: Array, centres: Array) -> Labels:
    """The centre that is nearest to each row, the first of several, (n,)."""
    return _assigned(X, centres, None).labels


def _drawn(mass: Array, n: int, rng: np.random.Generator) -> Labels:
    """Rows drawn by their mass, (n,)."""
    upto = np.cumsum(mass)
    places = np.searchsorted(upto, rng.uniform(size=n) * upto[-1], "right")
    return np.asarray(np.minimum(places, len(mass) - 1))


def _squared_distances(X: Array, rows: Array, before: Array | None) -> Array:
    """Squared distances (c, n) of each row of X to some rows, at most what they were before."""
    if core.is_there():
        return groups.squared_distances(X, rows, before)
    found = np.stack([((X - row) ** 2).sum(axis=1) for row in rows])
    return found if before is None else np.minimum(found, before)


def _assigned(X: Array, centres: Array, weight: Array | None) -> groups.Assigned:
    """Each row at the centre with the largest c x - c c / 2: the nearest, the first of several."""
    if core.is_there():
        return groups.assigned(X, centres, weight)
    halves, k = (centres**2).sum(axis=1) / 2, len(centres)
    blocks = (X[start : start + BLOCK_ROWS] for start in range(0, len(X), BLOCK_ROWS))
    labels = np.concatenate([(block @ centres.T - halves).argmax(axis=1) for block in blocks])
    columns = X.T if weight is None else X.T * weight
    sums = [np.bincount(labels, column, k) for column in columns]
    held = np.bincount(labels, weight, k).astype(np.float64)
    return groups.Assigned(labels.astype(np.int32), held, np.stack(sums, axis=1))


def _moved(X: Array, centres: Array, weight: Array | None) -> Array:
    """The centres at the means of the rows that are nearest to them, (k, d).

    One without rows goes to the row that is farthest from its own.
    """
    labels, held, sums = _assigned(X, centres, weight)
    empty = np.flatnonzero(held == 0)
    moved = sums / np.where(held > 0, held, 1.0)[:, None]
    if len(empty):
        distances = ((X - centres[labels]) ** 2).sum(axis=1)
        moved[empty] = X[np.argsort(-distances, kind="stable")[: len(empty)]]
    return np.asarray(moved)
