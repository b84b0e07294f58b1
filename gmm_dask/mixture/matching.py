"""Which component of one mixture is which of another: overlap of Gaussians, and an assignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.covariance.factors import inverse_triangular
from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]

SEPARATE = 0.1  # components that overlap less are called separate
MOST_WORK = 1e9  # k^2 d^3 beyond which the overlaps of all pairs would take seconds
ENDLESS = 1e100  # a cost above every other that sums of costs can still hold


@dataclass(frozen=True)
class Matching:
    """An assignment between the components of two mixtures, as plain indices.

    Parameters
    ----------
    pairs : tuple of (int, int)
        A component of the first and its partner in the second, ascending by the first.
    distances : tuple of float
        Distance of the components of each pair, as `matching_distances` gives it.
    only_first, only_second : tuple of int
        Components without a partner, ascending.
    """

    pairs: tuple[tuple[int, int], ...]
    distances: tuple[float, ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


def match(first: Parameters, second: Parameters, limit: float = math.inf) -> Matching:
    """The assignment of components with the least sum of `matching_distances`.

    Without a limit every component of the smaller mixture has a partner. With one, a pair costs
    at most the limit and a pair that costs so much is none: leaving two components alone is then
    as dear as pairing them at the limit, so a chain of far shifts never pays for one exact pair.

    Parameters
    ----------
    first, second : Parameters
        Mixtures of the same features; their families and numbers of components may differ.
    limit : float
        A distance; `-log(SEPARATE)` pairs no components that are separate.

    Raises
    ------
    ValueError
        The mixtures have different numbers of features.
    """
    from scipy.optimize import linear_sum_assignment

    found = matching_distances(first, second)
    cost = np.minimum(found, min(limit, ENDLESS))
    rows, columns = linear_sum_assignment(cost)
    paired = [
        (int(i), int(j)) for i, j in zip(rows, columns, strict=True) if not cost[i, j] >= limit
    ]
    return Matching(
        tuple(paired),
        tuple(float(found[pair]) for pair in paired),
        _others(first.n_components, [i for i, _ in paired]),
        _others(second.n_components, [j for _, j in paired]),
    )


def matching_distances(first: Parameters, second: Parameters) -> Array:
    """How unlike each weighted component of one is to each of the other, (k, l), from zero.

    With Gaussians f, g and weights w, v this is -log(2 sqrt(w v) / (w + v)), which is zero for
    equal weights, plus the Bhattacharyya distance of f and g. The part of that distance that
    compares covariances is divided by the number of features: errors of estimation alone let it
    grow with their square.
    """
    location, shape = _parts(first, second)
    return np.asarray(location + shape / first.n_features + _weight_distances(first, second))


def bhattacharyya_distances(first: Parameters, second: Parameters | None = None) -> Array:
    """Bhattacharyya distances between the Gaussians of two mixtures, or of one, (k, l).

    With d = m - l and S = (A + B) / 2: d^T S^-1 d / 8 + log(det S / sqrt(det A det B)) / 2
    (Kailath, IEEE Trans. Communication Technology 15, 1967). Weights do not count.

    Raises
    ------
    ValueError
        The mixtures have different numbers of features.
    """
    location, shape = _parts(first, first if second is None else second)
    found = location + shape
    if second is not None:
        return found
    upper = np.triu(found, 1)
    return upper + upper.T


def overlaps(first: Parameters, second: Parameters | None = None) -> Array:
    """Bhattacharyya coefficients, the integrals of sqrt(f g), (k, l): 1 where f and g are equal."""
    return np.exp(-bhattacharyya_distances(first, second))


def shifts(first: Parameters, second: Parameters) -> Array:
    """How far the means of one lie from those of the other, (k, l), in standard deviations.

    The standard deviations are those of the average of both covariances, in the direction between
    the means.
    """
    return np.sqrt(8 * _parts(first, second)[0])


class Neighbour(NamedTuple):
    """The component that overlaps most with another, and what tells the two apart.

    Parameters
    ----------
    component : int
    overlap : float
        Bhattacharyya coefficient, 0 to 1.
    shares : (d,)
        By how much the squared distance of the means, in their average covariance, falls without
        each column: the largest tell the two apart.
    """

    component: int
    overlap: float
    shares: Array


def neighbours(parameters: Parameters) -> tuple[Neighbour, ...]:
    """The nearest neighbour of each component, from the parameters alone.

    Empty for one component, and where comparing all pairs would take more than MOST_WORK.
    """
    k, d = parameters.means.shape
    if k == 1 or k * k * d**3 > MOST_WORK:
        return ()
    found = np.array(overlaps(parameters))
    np.fill_diagonal(found, -1.0)
    nearest = found.argmax(axis=1)
    return tuple(
        Neighbour(int(other), float(found[j, other]), _shares(parameters, j, int(other)))
        for j, other in enumerate(nearest)
    )


def _weight_distances(first: Parameters, second: Parameters) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(first.weights[:, None] / second.weights)
        found = np.log((root + 1 / root) / 2)
    return np.where(np.isnan(root), 0.0, found)  # both weights are zero: they are equal


def _parts(first: Parameters, second: Parameters) -> tuple[Array, Array]:
    """The two terms of the distances: of the means and of the covariances, (k, l) each."""
    if first.n_features != second.n_features:
        raise ValueError(
            f"Mixtures of {first.n_features} and of {second.n_features} features have no "
            "components in common."
        )
    independent = all(each.family.matrices is None for each in (first, second))
    of_one = _variance_parts if independent else _matrix_parts
    location, shape = np.empty((2, first.n_components, second.n_components))
    with np.errstate(over="ignore"):  # what is too far apart for float64 is infinitely far apart
        for i in range(first.n_components):
            location[i], shape[i] = of_one(first, second, i)
    return location, np.maximum(shape, 0.0)


def _variance_parts(first: Parameters, second: Parameters, i: int) -> tuple[Array, Array]:
    """Both terms where features are independent, (l,) each."""
    a, b = first.family.variances[i], second.family.variances
    location = ((first.means[i] - second.means) / np.sqrt((a + b) / 2)) ** 2
    root = np.sqrt(a / b)
    shape = np.log((root + 1 / root) / 2)
    return location.sum(axis=1) / 8, shape.sum(axis=1) / 2


def _matrix_parts(first: Parameters, second: Parameters, i: int) -> tuple[Array, Array]:
    """Both terms of any covariances, (l,) each.

    In the coordinates in which A is the identity and B is W W^T, S is half of R^T R with R the
    triangle of [I; W^T]: nothing is squared, and R has an inverse whatever A and B are.
    """
    k, d = second.means.shape
    one_for_all = second.family.owners == (None,)
    U = first.dense_factor(i)
    roots = np.stack([second.dense_factor(j) for j in range(1 if one_for_all else k)])
    W_transposed = inverse_triangular(roots) @ U
    ones = np.broadcast_to(np.eye(d), W_transposed.shape)
    R = np.asarray(np.linalg.qr(np.concatenate([ones, W_transposed], axis=1), mode="r"))
    difference = ((second.means - first.means[i]) @ U).reshape(len(R), -1, d)
    solved = np.linalg.solve(R.swapaxes(1, 2), difference.swapaxes(1, 2))
    log_det = np.log(np.abs(np.einsum("ldd->ld", R))).sum(axis=1) - d * math.log(2) / 2
    of_factors = second.family.log_determinants() - first.family.log_determinants()[i]
    return (solved**2).sum(axis=1).reshape(k) / 4, log_det + of_factors / 2


def _others(n: int, taken: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(range(n)) - set(taken)))


def _shares(parameters: Parameters, i: int, j: int) -> Array:
    """v_c^2 / P_cc with v = P (m_i - m_j) and P the inverse of the average covariance, (d,)."""
    pair = parameters.take([i, j])
    scale = np.sqrt(pair.family.variances.mean(axis=0))  # of units, so that none is badly scaled
    covariances = pair.dense_covariances() / scale[:, None] / scale
    precision = np.linalg.pinv(covariances.mean(axis=0), hermitian=True)
    v = precision @ ((pair.means[0] - pair.means[1]) / scale)
    diagonal = np.diagonal(precision)
    return np.asarray(v**2 / np.where(diagonal > 0, diagonal, np.inf))
