"""The first parameters, from a sample of rows that fits in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import DataError, SettingsError
from gmm_dask.fitting.initial.initial_values import Given
from gmm_dask.fitting.initial.kmeans import kmeans, kmeans_plusplus, nearest
from gmm_dask.fitting.m_step import Maximisation, Step
from gmm_dask.mixture import Estimate, Parameters, core, estimate_from_responsibilities
from gmm_dask.mixture.core import groups
from gmm_dask.sampling import ColumnSpread, differ, weight_unit

Array = npt.NDArray[np.float64]

MAX_REGROUPINGS = 20
SCALING_ROWS = 4096  # about as many tell how wide columns are within their parts
NARROWEST = 0.01  # of a column's variance: what its parts are taken to have at least


def initialize(
    sample: npt.NDArray[Any],
    n_components: int,
    covariance_type: str,
    maximise: Maximisation,
    *,
    init_params: str = "kmeans",
    seed: np.random.SeedSequence,
    sample_weight: npt.NDArray[Any] | None = None,
    given: Given | None = None,
    ready: Prepared | None = None,
) -> Step:
    """Parameters to start from, and what was done to components; same sample and seed, same bits.

    Parameters
    ----------
    sample : (m, d)
        Rows drawn at random from all rows; NaN is a missing value. Equal ones count as one of
        their weight: a row of weight 3 and three rows start the same mixture.
    maximise : Maximisation
        The M-step, for its regularisation and its policy for groups of rows that are no components.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        kmeans, k-means++ and random_from_data place centres, assign each row to the nearest on
        standardised columns and take the parameters of those groups; random draws
        responsibilities.
    seed : numpy.random.SeedSequence
    sample_weight : (m,), optional
        Only the ratios of weights matter.
    given : Given, optional
    ready : Prepared, optional
        These rows, where they start several mixtures.

    Raises
    ------
    DataError
        No row of positive weight, or without weights fewer rows than components.
    SingularCovarianceError, StarvedComponentError
        A group of rows is no component, and the policy is to stop.
    """
    given = given or Given()
    if given.weights is not None and given.means is not None and given.precisions is not None:
        parameters = Parameters.from_precisions(
            given.weights, given.means, given.precisions, covariance_type
        )
        return maximise.adopt(parameters)
    try:
        method = INIT_METHODS[init_params]
    except KeyError:
        raise SettingsError(
            f"init_params is {init_params!r}; it must be one of {', '.join(INIT_METHODS)}"
        ) from None
    ready = prepare(sample, n_components, sample_weight) if ready is None else ready
    sample, weight, standard = ready.sample, ready.weight, ready.standard
    filled = np.nan_to_num(standard, nan=0.0)  # the mean of the column
    resp = method(filled, n_components, np.random.default_rng(seed), weight)
    if init_params != "random" and np.isnan(standard).any():
        resp = _regrouped(standard, filled, resp, weight)
    found = _estimate(sample, resp, covariance_type, maximise.reg_covar, weight)
    return _with_given(found, given, maximise)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample made ready to start mixtures of so many components from.

    Parameters
    ----------
    sample : (m, d)
        Different rows, in an order of their own.
    weight : (m,), optional
    standard : (m, d)
        The rows on standardised columns.
    """

    sample: Array
    weight: Array | None
    standard: Array


def prepare(
    sample: npt.NDArray[Any], n_components: int, sample_weight: npt.NDArray[Any] | None = None
) -> Prepared:
    """The rows that `initialize` looks at; raises DataError as it does."""
    sample, weight = _weighted(sample, sample_weight)
    if len(sample) < (n_components if sample_weight is None else 1):
        raise DataError(
            f"{len(sample)} rows of positive weight cannot start {n_components} components: "
            "give more rows or set n_components lower."
        )
    sample, weight = _different(sample, weight, n_components)
    return Prepared(sample, weight, _standardised(sample, weight))


def start_of_groups(
    ready: Prepared, resp: Array, covariance_type: str, maximise: Maximisation
) -> Step:
    """The start of groups that are known: `resp` (m, k) of the rows that were made ready."""
    found = _estimate(ready.sample, resp, covariance_type, maximise.reg_covar, ready.weight)
    return maximise.begin(found)


def _weighted(
    sample: npt.NDArray[Any], sample_weight: npt.NDArray[Any] | None
) -> tuple[Array, Array | None]:
    """The rows of positive weight in an order of their own, and weights of less than 2."""
    sample = np.asarray(sample, dtype=np.float64)
    order = _canonical_order(sample)
    if sample_weight is None:
        return sample[order], None
    weight = np.asarray(sample_weight, dtype=np.float64)
    weight = weight[order] / weight_unit(float(weight.max(initial=0.0)))
    return sample[order[weight > 0]], weight[weight > 0]


def _different(X: Array, weight: Array | None, k: int) -> tuple[Array, Array | None]:
    """Equal rows, which stand together, as one of all their weight; weights of at most 1 or none.

    Where these are fewer than k rows, each is parted in as many as it takes.
    """
    is_new = np.ones(len(X), bool)
    is_new[1:] = X[1:, 0] > X[:-1, 0]
    old = np.flatnonzero(~is_new)
    is_new[old] = differ(X[old], X[old - 1])
    first = np.flatnonzero(is_new)
    if len(first) < len(X):
        weight = np.add.reduceat(np.ones(len(X)) if weight is None else weight, first)
        X = X[first]
    parts = -(-k // len(X))
    if weight is None or (weight == weight[0]).all():
        return X.repeat(parts, axis=0), None
    return X.repeat(parts, axis=0), (weight / weight.max()).repeat(parts)


def _canonical_order(X: Array) -> npt.NDArray[np.intp]:
    """The rows in ascending order, whatever the units of the columns.

    So a start does not know the order of the rows; and equal ones stand together.
    """
    column = X[:, 0]
    order = groups.order_of(column)
    first = column[order]
    if (first[1:] > first[:-1]).all():
        return order
    return np.lexsort(X.T[::-1])


def _estimate(
    sample: Array, resp: Array, covariance_type: str, reg_covar: float, weight: Array | None
) -> Estimate:
    """The parameters of the groups; a missing value stands at its group's mean, as wide as all."""
    absent = np.isnan(sample)
    if not absent.any():
        return estimate_from_responsibilities(sample, resp, covariance_type, reg_covar, weight)
    spread, shares = (
        ColumnSpread.of(sample, weight),
        resp if weight is None else _scaled(resp, weight),
    )
    D = np.where(absent, 0.0, sample - spread.mean)
    there = shares.T @ ~absent
    means = (shares.T @ D) / np.where(there > 0, there, 1.0)
    filled = spread.mean + np.where(absent, resp @ means, D)
    found = estimate_from_responsibilities(filled, resp, covariance_type, reg_covar, weight)
    rows = np.where(found.alive, shares.sum(axis=0), 0.0)
    lost = np.where(found.alive[:, None], shares.T @ absent, 0.0) * spread.variances
    wider = found.family.plus(found.family.averaged_variances(lost, rows))
    return replace(found, family=wider)


def _regrouped(X: Array, filled: Array, resp: Array, weight: Array | None) -> Array:
    """Groups in which each row is nearest to its own by the values that it has."""
    there = (~np.isnan(X)).astype(np.float64)
    for _ in range(MAX_REGROUPINGS):
        counted = resp if weight is None else _scaled(resp, weight)
        n_there = counted.T @ there
        centres = counted.T @ filled / np.where(n_there > 0, n_there, 1.0)
        distances = there @ (centres**2).T - 2 * filled @ centres.T
        distances[:, ~(resp > 0).any(axis=0)] = np.inf
        nearest = _one_hot(distances.argmin(axis=1), resp.shape[1])
        if np.array_equal(nearest, resp):
            break
        resp = nearest
    return resp


def _scaled(resp: Array, weight: Array) -> Array:
    return np.asarray(resp * weight[:, None])


def _with_given(found: Estimate, given: Given, maximise: Maximisation) -> Step:
    weights = found.weights if given.weights is None else given.weights
    means = found.means if given.means is None else given.means
    if given.precisions is not None:
        kind = found.family.name
        return maximise.adopt(Parameters.from_precisions(weights, means, given.precisions, kind))
    return maximise.begin(replace(found, weights=weights, means=means))


@np.errstate(over="ignore", invalid="ignore")  # the M-step names columns beyond float64
def _standardised(sample: Array, weight: Array | None) -> Array:
    # On raw columns the one of largest scale would decide the distances alone.
    centred = sample - ColumnSpread.of(sample, weight).mean
    largest = np.nanmax(np.abs(centred), axis=0, initial=0.0)
    centred /= np.where(largest > 0, largest, 1.0)  # no square overflows or vanishes
    few = slice(None, None, max(1, len(centred) // SCALING_ROWS))
    part, weight = centred[few], None if weight is None else weight[few]
    total = ColumnSpread.of(part, weight).variances
    within = [_variance_within(column, weight) for column in part.T]
    spread = np.sqrt(np.maximum(within, NARROWEST * total))
    centred /= np.where(spread > 0, spread, 1.0)
    return np.asarray(centred)


def _variance_within(column: Array, weight: Array | None) -> float:
    """Variance of a column about the means of its two best separated parts.

    A column that tells clusters apart is as wide as they are far apart: by its variance alone it
    would be scaled until it tells no more than any other.
    """
    there = ~np.isnan(column)
    x, w = column[there], np.ones(len(column)) if weight is None else weight
    w = w[there]
    if len(x) < 2:
        return 0.0
    if core.is_there():
        return groups.variance_within(x, None if weight is None else w)
    order = np.argsort(x, kind="stable")
    x, w = x[order], w[order]
    x = x - w @ x / w.sum()
    lower, upper = np.cumsum(w)[:-1], np.cumsum(w[::-1])[::-1][1:]
    between = np.cumsum(w * x)[:-1] ** 2 * (1 / lower + 1 / upper)
    return float((w @ x**2 - between.max()) / w.sum())


def _kmeans(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    return _one_hot(kmeans(X, k, rng, weight), k)


def _kmeans_plusplus(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    return _nearest(X, kmeans_plusplus(X, k, rng, weight))


def _random_from_data(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    if weight is None:
        return _nearest(X, X[rng.choice(X.shape[0], k, replace=False)])
    # Arrivals in a race at these rates are drawn one by one by weight, however small some are.
    arrival = np.log(rng.exponential(size=X.shape[0])) - np.log(weight)
    return _nearest(X, X[np.argsort(arrival, kind="stable")[:k]])


def _random(X: Array, k: int, rng: np.random.Generator, weight: Array | None) -> Array:
    resp = rng.uniform(size=(X.shape[0], k))
    return np.asarray(resp / resp.sum(axis=1, keepdims=True))


INIT_METHODS: dict[str, Callable[[Array, int, np.random.Generator, Array | None], Array]] = {
    "kmeans": _kmeans,
    "k-means++": _kmeans_plusplus,
    "random": _random,
    "random_from_data": _random_from_data,
}


def _nearest(X: Array, centres: Array) -> Array:
    return _one_hot(nearest(X, centres), centres.shape[0])


def _one_hot(labels: npt.NDArray[Any], k: int) -> Array:
    resp = np.zeros((labels.shape[0], k))
    resp[np.arange(labels.shape[0]), labels] = 1.0
    return resp
