"""Directions in which the components of a mixture are farthest apart, and the mixture in them.

The squared distance in a few directions is never more than the whole one (it is the least over
all rows that look the same there), so a component that is out of reach in them is out of reach.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]

SCREENED_FROM = 12  # columns; with fewer, a look at some directions costs as much as all columns
FEW, MORE, MORE_FROM = 8, 16, 24  # directions, and the columns from which there are more of them
STEP = 4  # directions looked at before a component may be left
NOTHING = 1e-3  # pooled standard deviations that all components are apart in a direction
WIDE = 6.0  # standard deviations from its mean, where the rows of a component are
EXACT, CERTAIN = 1e-6, 1e-8  # rounding of a distance, and of a covariance in units of its least
EXACT_SINGLE = 0.03  # a bound of 36 is then off by 1 %, which `ROUNDED` allows for
LINE_BYTES = 64  # directions are filled up to whole lines
DENSE = 1.3  # operations of a distance, subtractions included, in units of its multiplications


class Screen(NamedTuple):
    """What the core needs to leave components out; without directions it computes all of them.

    Parameters
    ----------
    centre : (d,)
        Mean of the mixture, from which rows are projected.
    directions : (d, r)
        Discriminant directions in units of the pooled standard deviation, the most separating
        first; columns of 0 fill up the last lanes.
    means : (k, n)
        Means of the components in the n directions that separate.
    biases : (k,)
        Log weight less half the squared length of the mean.
    factors : (k or 1, n, n)
        Upper triangular factors of the precisions there; 0 where rounding would decide.
    offsets : (k, n)
        The means in the coordinates of their factors.
    worth : float
        The part of the components that must be out of reach for the screen to be worth its time.
    """

    centre: Array
    directions: Array
    means: Array
    biases: Array
    factors: Array
    offsets: Array
    worth: float

    def narrowed(self) -> Screen:
        """The screen with its arrays in float32."""
        return Screen(
            narrow(self.centre),
            narrow(self.directions),
            narrow(self.means),
            narrow(self.biases),
            narrow(self.factors),
            narrow(self.offsets),
            self.worth,
        )


def narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in float32, its values side by side."""
    return array.astype(np.float32, order="C")


@lru_cache(maxsize=4)
def screen_of(parameters: Parameters, kind: str = "float64") -> Screen:
    """The screen of a mixture: the discriminant directions of its own components.

    Its numbers are float64; the kind of float is the one that it will be used in.

    Eigenvectors of the covariance between the means against the pooled covariance within (Fisher
    1936; Hastie, Tibshirani, Friedman, Elements of Statistical Learning, 4.3.3).
    """
    k, d = parameters.means.shape
    if parameters.family.matrices is None or d < SCREENED_FROM or k == 1:
        return no_screen(parameters)
    with np.errstate(all="ignore"):  # what is not finite in the end is not used
        try:
            made = _screen(parameters, FEW if d < MORE_FROM else MORE, np.dtype(kind))
        except np.linalg.LinAlgError:
            return no_screen(parameters)
    finite = all(np.isfinite(each).all() for each in made)
    return made if finite else no_screen(parameters)


def no_screen(parameters: Parameters) -> Screen:
    """The screen that looks at nothing."""
    k, d = parameters.means.shape
    return Screen(
        np.zeros(d), np.zeros((d, 0)), np.zeros((k, 0)), np.zeros(k), np.zeros((1, 0, 0)),
        np.zeros((k, 0)), 1.0,
    )  # fmt: skip


def _screen(parameters: Parameters, at_most: int, kind: np.dtype[Any]) -> Screen:
    weights, (k, d) = parameters.weights, parameters.means.shape
    covariances = parameters.family.matrices
    assert covariances is not None
    centre = weights @ parameters.means
    deviations = parameters.means - centre
    directions = _discriminants(weights, deviations, covariances, at_most)
    n = directions.shape[1]
    if n == 0:
        return no_screen(parameters)
    means = deviations @ directions
    within = directions.T @ covariances @ directions
    lower = np.linalg.cholesky(within)
    factors = np.ascontiguousarray(np.triu(np.linalg.inv(lower).swapaxes(-1, -2)))
    offsets = np.einsum("kc,kce->ke", means, np.broadcast_to(factors, (k, n, n)))
    sure = _is_sure(deviations, covariances, directions, lower, factors, offsets, kind)
    if len(factors) == 1:
        sure = np.broadcast_to(sure.all(), (k,))
    operations = n * (n + 1) / 2 + n * d / k + n
    fill, lanes = ((0, 0), (0, -n % STEP)), LINE_BYTES // kind.itemsize
    return Screen(
        centre,
        np.pad(directions, ((0, 0), (0, -n % lanes))),
        np.pad(means, fill),
        np.log(weights) - (means**2).sum(axis=1) / 2,
        np.pad(factors * sure[: len(factors), None, None], (*fill[:1], fill[1], fill[1])),
        np.pad(offsets * sure[:, None], fill),
        operations / (DENSE * d * (d + 1) / 2),
    )


def _discriminants(
    weights: Array, deviations: Array, covariances: Array, at_most: int
) -> npt.NDArray[Any]:
    """Discriminant directions (d, n), the best first; components in one place have none."""
    shares = weights if len(covariances) > 1 else np.ones(1)
    within = np.einsum("k,kde->de", shares, covariances)
    spread = np.sqrt(np.diagonal(within) + weights @ deviations**2)
    root = np.linalg.cholesky(within / spread / spread[:, None])
    between = np.linalg.solve(root, (deviations / spread).T) * np.sqrt(weights)
    vectors, values, _ = np.linalg.svd(between, full_matrices=False)
    n = min(at_most, int((values > NOTHING).sum()))
    return np.asarray(np.linalg.solve(root.T, vectors[:, :n]) / spread[:, None])


def _is_sure(
    deviations: Array,
    covariances: Array,
    directions: Array,
    lower: Array,
    factors: Array,
    offsets: Array,
    kind: np.dtype[Any],
) -> npt.NDArray[np.bool_]:
    """Whether distances of rows about a component hardly depend on rounding, (k,)."""
    d, n = directions.shape
    size, eps = np.abs(directions), 4 * np.finfo(float).eps
    unit, limit = (eps, EXACT) if kind.itemsize == 8 else (np.finfo(kind).eps, EXACT_SINGLE)
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    farthest = (np.abs(deviations) + WIDE * np.sqrt(variances)).max(axis=0)
    of_rows = np.abs(factors).swapaxes(-1, -2) @ (d * unit * (size.T @ farthest))
    exact = (of_rows + n * unit * np.abs(offsets)).max(axis=1) < limit
    rounding = d * eps * np.diagonal(size.T @ np.abs(covariances) @ size, axis1=1, axis2=2)
    least = np.diagonal(lower, axis1=1, axis2=2).min(axis=1) ** 2
    return np.asarray(exact & (rounding.max(axis=1) < CERTAIN * least))
