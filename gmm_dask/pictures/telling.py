"""Which features tell the components of a mixture apart, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.words import short

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

NEAR, FAR, VERY_FAR = 0.3, 0.8, 1.5  # standard deviations of all rows
MAX_WORDS = 3  # features that a component is known by
MAX_CORRELATED = 40  # features among which correlations are looked for
RIDGE = 1e-9  # in squared standard deviations: collinear columns leave W barely singular


class Spreads(NamedTuple):
    """The spread of each feature alone, and how far it separates the components.

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


def distinctions(parameters: Parameters, names: Sequence[str]) -> list[str]:
    """What each component is known by, in words: the features in which its mean is unusual.

    Three features at most, the most unusual first: FAR standard deviations of all rows from their
    mean, or NEAR ones where there are none so far.
    """
    unusual, found = away(parameters), []
    for distances in unusual:
        order = np.argsort(-np.abs(distances), kind="stable")[:MAX_WORDS]
        limit = FAR if abs(distances[order[0]]) >= FAR else NEAR
        said = [
            f"{_level(distances[f])} {short(names[f])}" for f in order if abs(distances[f]) >= limit
        ]
        found.append(", ".join(said) or "near the mean of all rows in every feature")
    return found


def strongest_correlations(
    parameters: Parameters, names: Sequence[str], at_most: int
) -> list[tuple[int, str, str, float]]:
    """Component, two features and their correlation within it: the strongest, largest first.

    Of the MAX_CORRELATED features that tell the components apart best; none where the covariance
    type has no correlations. In a tied mixture all components have those of the first.
    """
    features = most_telling(parameters, MAX_CORRELATED)
    family = parameters.family.marginal(features)
    if family.matrices is None or len(features) < 2:
        return []
    deviations = np.sqrt(family.variances)
    upper = np.triu_indices(len(features), 1)
    found = []
    for j, matrix in zip(family.owners, family.matrices, strict=True):
        spread = deviations[j or 0]
        correlations = (matrix / spread[:, None] / spread)[upper]
        for place in np.argsort(-np.abs(correlations), kind="stable")[:at_most]:
            a, b = (names[features[axis[place]]] for axis in upper)
            found.append((-1 if j is None else j, a, b, float(correlations[place])))
    return sorted(found, key=lambda each: -abs(each[3]))[:at_most]


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


def _level(distance: float) -> str:
    """How far a mean is from that of all rows, in words."""
    how = "" if abs(distance) < FAR else "high " if distance > 0 else "low "
    if not how:
        return "rather high" if distance > 0 else "rather low"
    return ("very " if abs(distance) >= VERY_FAR else "") + how.strip()


def _power_of_two(variances: Array, deviations: Array) -> Array:
    """A unit for each feature in which no square overflows; a power of two changes no bits."""
    largest = np.maximum(np.sqrt(variances).max(axis=0), np.abs(deviations).max(axis=0))
    return np.asarray(np.ldexp(1.0, np.where(largest > 0, np.frexp(largest)[1] - 1, 0)))
