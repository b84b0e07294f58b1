"""Which features tell the components of a mixture apart, and by how much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

RIDGE = 1e-9  # in squared standard deviations: collinear columns leave W barely singular


class Spreads(NamedTuple):
    """Of each feature alone.

    Parameters
    ----------
    total : (d,)
        Standard deviation in the whole mixture; 1 where there is none.
    separation : (d,)
        Variance between the components over that within them.
    """

    total: Array
    separation: Array


def spreads(parameters: Parameters) -> Spreads:
    """Found from variances alone: as cheap for many features as for few."""
    weights, variances = parameters.weights, parameters.family.variances
    deviations = parameters.means - weights @ parameters.means
    unit = _power_of_two(variances, deviations)
    within = weights @ (variances / unit / unit)
    between = weights @ (deviations / unit) ** 2
    total = within + between
    safe = np.where(total > 0, total, 1.0)
    separation = (between / safe) / np.maximum(within / safe, RIDGE)
    return Spreads(np.where(total > 0, np.sqrt(total), 1.0) * unit, separation)


def most_telling(parameters: Parameters, at_most: int) -> Indices:
    """The features that separate the components best, in their own order."""
    best = np.argsort(-spreads(parameters).separation, kind="stable")[:at_most]
    return np.sort(best)


def away(parameters: Parameters) -> Array:
    """Means of components from those of all, in standard deviations of the mixture, (k, d)."""
    overall = parameters.weights @ parameters.means
    return np.asarray((parameters.means - overall) / spreads(parameters).total)


def standardised_scatter(parameters: Parameters) -> tuple[Array, Array, Array]:
    """Total standard deviation of each feature, and covariance within and between components.

    The covariances are in units of the standard deviations: (d,), (d, d), (d, d).
    """
    weights, covariances = parameters.weights, parameters.dense_covariances()
    total = spreads(parameters).total
    deviations = (parameters.means - weights @ parameters.means) / total
    within = np.einsum("k,kde->de", weights, covariances / total[:, None] / total)
    between = (deviations * weights[:, None]).T @ deviations
    return total, within, between


def _power_of_two(variances: Array, deviations: Array) -> Array:
    """A unit for each feature in which no square overflows; a power of two changes no bits."""
    largest = np.maximum(np.sqrt(variances).max(axis=0), np.abs(deviations).max(axis=0))
    return np.asarray(np.ldexp(1.0, np.where(largest > 0, np.frexp(largest)[1] - 1, 0)))
