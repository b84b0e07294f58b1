"""Coordinate systems in which groups of rows may show, and the starts that are taken in them.

Which directions tell clusters apart nobody knows before they are found. Columns standardised by
parts, the data as they are, whitened and half-whitened rows (Scrucca and Raftery 2015, Adv. Data
Anal. Classif. 9) and the extreme directions of the fourth moments of whitened rows with their
skewness vector (Tyler, Critchley, Duembgen and Oja 2009, J. R. Stat. Soc. B 71; Brubaker and
Vempala 2008, FOCS) fail on different data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.initial.kmeans import kmeans_plusplus, nearest, settled
from gmm_dask.fitting.search.ground import MATRICES, Ground

Array = npt.NDArray[np.float64]

LEAST_VARIANCE = 1e-9  # of the widest direction's: a narrower one is rounding, and not looked at
MOST_ROWS = 4096  # that starts are taken on
SWEEPS = 3  # of k-means: what they leave unsettled EM settles
MERGED_ROWS = 128  # that are merged pair by pair


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a ground.

    Parameters
    ----------
    ground : Ground
    standard : (m, d)
        The rows of the ground on columns standardised by parts, without missing values.
    """

    ground: Ground
    standard: Array

    @property
    def names(self) -> tuple[str, ...]:
        """The views in the order of their use, those of the family's own symmetry first."""
        kind = self.ground.covariance_type
        if kind in MATRICES:
            return ("whitened", "standard", "fourth", "half", "raw", "skewed")
        if kind == "diag":
            return ("standard", "whitened", "half", "fourth", "raw", "skewed")
        return ("raw", "standard", "half", "whitened", "fourth", "skewed")

    def rows(self, name: str, rng: np.random.Generator) -> Array:
        """The rows as a view shows them, (m, q)."""
        if name == "fourth":
            return self._fourth(rng)
        return np.asarray(getattr(self, f"_{name}"))

    @cached_property
    def _standard(self) -> Array:
        return self.standard

    @cached_property
    def _raw(self) -> Array:
        X = np.nan_to_num(self.ground.X - self.ground.frame.centre, nan=0.0)
        largest = np.abs(X).max(initial=0.0)
        return np.ascontiguousarray(X / (largest if largest > 0 else 1.0))

    @cached_property
    def _principal(self) -> tuple[Array, Array]:
        """Whitened rows (m, q) and the standard deviations of these directions (q,)."""
        Y = self.ground.rows / np.sqrt(
            np.where(self.ground.variances > 0, self.ground.variances, 1)
        )
        W = Y if self.ground.weight is None else Y * self.ground.weight[:, None]
        values, vectors = np.linalg.eigh(W.T @ Y / self.ground.n_rows)
        kept = values >= LEAST_VARIANCE * values[-1]
        roots = np.sqrt(values[kept])
        roots[roots == 0] = 1.0  # squares of such values are below float64
        return np.ascontiguousarray(Y @ (vectors[:, kept] / roots)), roots

    @cached_property
    def _whitened(self) -> Array:
        return self._principal[0]

    @cached_property
    def _half(self) -> Array:
        D = self.standard - self.standard.mean(axis=0)
        _, values, vectors = np.linalg.svd(D.T @ D / len(D))
        kept = values >= LEAST_VARIANCE * values[0]
        roots = values[kept] ** 0.25
        roots[roots == 0] = 1.0
        return np.ascontiguousarray(D @ (vectors[kept].T / roots))

    @cached_property
    def _directions(self) -> Array:
        """Eigenvectors of the scatter of fourth moments of whitened rows, light tails first."""
        Z = self._whitened
        mass = (Z**2).sum(axis=1)
        if self.ground.weight is not None:
            mass = mass * self.ground.weight
        _, vectors = np.linalg.eigh((Z * mass[:, None]).T @ Z)
        return np.asarray(vectors)

    def _fourth(self, rng: np.random.Generator) -> Array:
        Z, directions = self._whitened, self._directions
        q = min(directions.shape[1], 1 + int(rng.integers(3)))
        chosen = directions[:, :q] if rng.uniform() < 0.6 else directions[:, -q:]
        return np.ascontiguousarray(Z @ chosen)

    @cached_property
    def _skewed(self) -> Array:
        Z = self._whitened
        mass = (Z**2).sum(axis=1)
        if self.ground.weight is not None:
            mass = mass * self.ground.weight
        towards = mass @ Z
        along = Z @ (towards / max(float(np.sqrt(towards @ towards)), 1e-300))
        light = Z @ self._directions[:, 0]
        return np.ascontiguousarray(np.stack([along, 0.5 * light], axis=1))


Start = Callable[[Array, int, np.random.Generator, Array | None], npt.NDArray[np.intp]]


def by_kmeans(
    V: Array, k: int, rng: np.random.Generator, weight: Array | None
) -> npt.NDArray[np.intp]:
    """Groups of rows about k means, (m,)."""
    return np.asarray(settled(V, kmeans_plusplus(V, k, rng, weight), weight, SWEEPS))


def by_centres(
    V: Array, k: int, rng: np.random.Generator, weight: Array | None
) -> npt.NDArray[np.intp]:
    """Groups of the rows nearest to k rows that are far from one another, (m,)."""
    return np.asarray(nearest(V, kmeans_plusplus(V, k, rng, weight)))


def by_rows(
    V: Array, k: int, rng: np.random.Generator, weight: Array | None
) -> npt.NDArray[np.intp]:
    """Groups of the rows nearest to k rows drawn at random, (m,)."""
    return np.asarray(nearest(V, V[rng.choice(len(V), k, replace=False)]))


def by_merging(
    V: Array, k: int, rng: np.random.Generator, weight: Array | None
) -> npt.NDArray[np.intp]:
    """Groups about the means of clusters of some rows, merged where that costs least, (m,).

    Ward 1963, J. Am. Stat. Assoc. 58.
    """
    chosen = V[rng.choice(len(V), min(len(V), max(MERGED_ROWS, 2 * k)), replace=False)]
    return np.asarray(nearest(V, _merged(chosen, k)))


def _merged(V: Array, k: int) -> Array:
    """Means of k clusters of the rows, (k, q)."""
    n = len(V)
    means, sizes = V.copy(), np.ones(n)
    squares = (V**2).sum(axis=1)
    costs = (squares[:, None] + squares - 2 * V @ V.T) / 2
    np.fill_diagonal(costs, np.inf)
    nearest_one = costs.argmin(axis=1)
    least = costs[np.arange(n), nearest_one]
    for _ in range(n - k):
        i = int(least.argmin())
        j = int(nearest_one[i])
        total = sizes[i] + sizes[j]
        means[i] = (sizes[i] * means[i] + sizes[j] * means[j]) / total
        sizes[i], sizes[j] = total, 0.0
        costs[j], costs[:, j], least[j] = np.inf, np.inf, np.inf
        alive = sizes > 0
        D = means - means[i]
        row = np.where(alive, sizes * total / (sizes + total) * np.einsum("nq,nq->n", D, D), np.inf)
        row[i] = np.inf
        costs[i], costs[:, i] = row, row
        stale = np.flatnonzero(alive & ((nearest_one == i) | (nearest_one == j)))
        nearest_one[stale] = costs[stale].argmin(axis=1)
        least[stale] = costs[stale, nearest_one[stale]]
        closer = np.flatnonzero(alive & (row < least))
        nearest_one[closer], least[closer] = i, row[closer]
        nearest_one[i] = row.argmin()
        least[i] = row[nearest_one[i]]
    return means[sizes > 0]


STARTS: tuple[Start, ...] = (by_kmeans, by_centres, by_rows, by_centres)
