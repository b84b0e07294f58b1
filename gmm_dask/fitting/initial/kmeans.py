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
    if core.is_there():
        return groups.assigned(X, centres, weight, sweeps, STILL)
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
    draws = rng.uniform(size=1 + (k - 1) * n_trials)
    if core.is_there():
        return np.asarray(X[groups.seeds(X, k, n_trials, draws, weight)])
    mass = np.ones(len(X)) if weight is None else weight
    chosen = [int(_drawn(mass, draws[:1])[0])]
    distances = ((X - X[chosen]) ** 2).sum(axis=1)
    for each in draws[1:].reshape(k - 1, n_trials):
        tried = _drawn(distances * mass, each)
        left = np.minimum([((X - row) ** 2).sum(axis=1) for row in X[tried]], distances)
        best = int((left * mass).sum(axis=1).argmin())  # BLAS would add up by its threads
        chosen.append(int(tried[best]))
        distances = left[best]
    return np.asarray(X[chosen])


def nearest(X: Array, centres: Array) -> Labels:
    """The centre that is nearest to each row, the first of several, (n,)."""
    if core.is_there():
        return groups.assigned(X, centres)
    halves = (centres**2).sum(axis=1) / 2
    blocks = (X[start : start + BLOCK_ROWS] for start in range(0, len(X), BLOCK_ROWS))
    return np.concatenate([(block @ centres.T - halves).argmax(axis=1) for block in blocks])


def _drawn(mass: Array, draws: Array) -> Labels:
    """Rows drawn by their mass, (n,)."""
    upto = np.cumsum(mass)
    places = np.searchsorted(upto, draws * upto[-1], "right")
    return np.asarray(np.minimum(places, len(mass) - 1))


def _moved(X: Array, centres: Array, weight: Array | None) -> Array:
    """The centres at the means of the rows that are nearest to them, (k, d).

    One without rows goes to the row that is farthest from its own.
    """
    labels, k = nearest(X, centres), len(centres)
    columns = X.T if weight is None else X.T * weight
    sums = np.stack([np.bincount(labels, column, k) for column in columns], axis=1)
    held = np.bincount(labels, weight, k)
    empty = np.flatnonzero(held == 0)
    moved = sums / np.where(held > 0, held, 1.0)[:, None]
    if len(empty):
        distances = ((X - centres[labels]) ** 2).sum(axis=1)
        moved[empty] = X[np.argsort(-distances, kind="stable")[: len(empty)]]
    return np.asarray(moved)
