"""K-means: groups of rows to start from. EM of hard assignments and one spherical covariance.

Our own, as importing scikit-learn takes longer than all starts of a fit together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

MAX_SWEEPS = 50  # what they leave unsettled EM settles, and better
STILL = 1e-4  # of the columns' mean variance: squared movement of all centres that ends the sweeps
BLOCK_ROWS = 1 << 12  # whose distances stay in the cache; and sums do not depend on BLAS' threads


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


def settled(X: Array, centres: Array, weight: Array | None = None) -> Labels:
    """The group of each row, (n,), after sweeps from these centres (Lloyd 1982)."""
    least = STILL * float(X.var(axis=0).mean())
    columns = np.ascontiguousarray(X.T)
    for _ in range(MAX_SWEEPS):
        before, centres = centres, _moved(columns, centres, weight)
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
    weight = np.ones(len(X)) if weight is None else weight
    n_trials = 2 + int(np.log(k))
    squares = (X**2).sum(axis=1)
    chosen = [int(_drawn(weight, 1, rng)[0])]
    distances = _squared_distances(X, squares, chosen)[0]
    while len(chosen) < k:
        tried = _drawn(weight * distances, n_trials, rng)
        left = np.minimum(_squared_distances(X, squares, tried), distances)
        best = int((left * weight).sum(axis=1).argmin())  # BLAS would add up by its threads
        chosen.append(int(tried[best]))
        distances = left[best]
    return np.asarray(X[chosen])


def nearest(X: Array, centres: Array) -> Labels:
    """The centre that is nearest to each row, the first of several, (n,)."""
    blocks = _closeness(np.ascontiguousarray(X.T), centres)
    return np.concatenate([closeness.argmax(axis=0) for _, closeness in blocks])


def _drawn(mass: Array, n: int, rng: np.random.Generator) -> Labels:
    """Rows drawn by their mass, (n,)."""
    upto = np.cumsum(mass)
    places = np.searchsorted(upto, rng.uniform(size=n) * upto[-1], "right")
    return np.asarray(np.minimum(places, len(mass) - 1))


def _squared_distances(X: Array, squares: Array, chosen: Labels | list[int]) -> Array:
    """From each row to some of them, (c, n)."""
    found = squares - 2 * (X[chosen] @ X.T) + squares[chosen, None]
    found[np.arange(len(chosen)), chosen] = 0.0
    return np.asarray(np.maximum(found, 0.0))


def _closeness(columns: Array, centres: Array) -> Iterator[tuple[slice, Array]]:
    """Block by block c x - c c / 2, (k, block): half the squared distance less, but for x x / 2."""
    halves = (centres**2).sum(axis=1, keepdims=True) / 2
    for start in range(0, columns.shape[1], BLOCK_ROWS):
        at = slice(start, start + BLOCK_ROWS)
        yield at, centres @ columns[:, at] - halves


def _moved(columns: Array, centres: Array, weight: Array | None) -> Array:
    """The centres at the means of the rows that are nearest to them, (k, d).

    One without rows goes to the row that is farthest from its own.
    """
    held, sums = np.zeros(len(centres)), np.zeros_like(centres)
    for at, closeness in _closeness(columns, centres):
        mine = _one_of_each(closeness)
        if weight is not None:
            mine *= weight[at]
        held += mine.sum(axis=1)
        sums += mine @ columns[:, at].T
    empty = np.flatnonzero(held == 0)
    moved = sums / np.where(held > 0, held, 1.0)[:, None]
    if len(empty):
        moved[empty] = columns[:, _farthest(columns, centres, len(empty))].T
    return np.asarray(moved)


def _one_of_each(closeness: Array) -> Array:
    """1 where a row is nearest, 0 elsewhere; the first of several that are as near."""
    mine = (closeness == closeness.max(axis=0)).astype(np.float64)
    if np.count_nonzero(mine) > mine.shape[1]:
        mine[:] = 0.0
        mine[closeness.argmax(axis=0), np.arange(mine.shape[1])] = 1.0
    return np.asarray(mine)


def _farthest(columns: Array, centres: Array, n: int) -> Labels:
    """The n rows that are farthest from their nearest centre."""
    best = np.concatenate([each.max(axis=0) for _, each in _closeness(columns, centres)])
    distances = (columns**2).sum(axis=0) - 2 * best
    return np.asarray(np.argsort(-distances, kind="stable")[:n])
