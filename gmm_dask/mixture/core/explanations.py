"""Reasons by the core, in one sweep over rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.core.library import Curve, Reasons, TwoBest, address, call
from gmm_dask.mixture.covariance.family import CovarianceFamily
from gmm_dask.mixture.covariance.low_rank import LowRank
from gmm_dask.mixture.covariance.variances import Variances
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.reasons import LabelReasons, RowReasons, spreads_given_others

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = npt.NDArray[Any]
Numbers = npt.NDArray[np.integer[Any]]


class _Relations(NamedTuple):
    """What the core is told of how the columns of each component depend on each other.

    Parameters
    ----------
    spreads, logs : (k, d)
        Standard deviation of each column given the others, and its log.
    factors, scaled : (k or 1, d, d), optional
        Upper triangular; and each row times its spread. Of low rank `scaled` is (k, d): the spread
        over the variance of the noise.
    gains, loadings : (k, q, d), optional
    """

    spreads: Array
    logs: Array
    factors: Array | None = None
    scaled: Array | None = None
    gains: Array | None = None
    loadings: Array | None = None


def explain(
    X: Rows, parameters: Parameters, components: Numbers, others: Numbers | None, n_columns: int
) -> tuple[RowReasons, LabelReasons | None]:
    """What `reasons.explain` finds, to 1e-9; a row's reasons do not depend on the rows beside it.

    Raises
    ------
    ValueError
        X has other columns than the mixture, or a component is none of the mixture.
    """
    n, m = len(X), min(n_columns, parameters.n_features)
    of_rows = RowReasons(np.empty((n, m), np.int32), np.empty((n, m)), np.empty((n, m)))
    of_labels = None
    if others is not None:
        of_labels = LabelReasons(np.empty((n, m), np.int32), np.empty((n, m)))
    if X.shape[1:] != (parameters.n_features,):
        raise ValueError(f"X is of the shape {X.shape}; {parameters.n_features} columns are known")
    rows = np.require(X, np.float32 if X.dtype == np.float32 else np.float64, ("C", "A"))
    mine, other = _numbers(components, parameters), _numbers(others, parameters)
    if n:
        covariances = _covariances(rows, parameters)
        told = _relations(parameters.family)
        record = Reasons(
            *X.shape, parameters.n_components, m, rows.dtype == np.float32,
            address(rows), address(mine), address(other),
            address(parameters.means), address(told.spreads), address(told.logs),
            0 if told.factors is None else len(told.factors),
            address(told.factors), address(told.scaled),
            0 if told.gains is None else told.gains.shape[1],
            address(told.gains), address(told.loadings),
            0 if covariances is None else len(covariances), address(covariances),
            *map(address, of_rows), *map(address, of_labels or (None, None)),
        )  # fmt: skip
        call("gmm_explain", record)
    return of_rows, of_labels


def two_best(values: Array) -> tuple[Indices, Indices]:
    """The place of the largest value of each row (n, k), and of the next, as `reasons.two_best`."""
    rows = np.require(values, np.float64, ("C", "A"))
    first, second = np.empty(len(rows), np.intp), np.empty(len(rows), np.intp)
    if len(rows):
        call("gmm_find_two_best", TwoBest(*rows.shape, *map(address, (rows, first, second))))
    return first, second


def interpolated(values: Array, x: Array, y: Array) -> Array:
    """Values (n,) on the straight lines between the points (p,), as `np.interp` has them."""
    given, *points = (np.require(each, np.float64, ("C", "A")) for each in (values, x, y))
    found = np.empty(len(given))
    if len(given):
        record = Curve(len(given), len(x), *map(address, (given, *points, found)))
        call("gmm_interpolate", record)
    return found


def _numbers(components: Numbers | None, parameters: Parameters) -> npt.NDArray[np.int64] | None:
    if components is None:
        return None
    found = np.require(components, np.int64, ("C", "A"))
    if len(found) and not (found.min() >= 0 and found.max() < parameters.n_components):
        raise ValueError(f"components are 0 to {parameters.n_components - 1}")
    return found


@lru_cache(maxsize=4)
def _relations(family: CovarianceFamily) -> _Relations:
    spreads = spreads_given_others(family)
    logs = np.log(spreads)
    if isinstance(family, Variances):
        return _Relations(spreads, logs)
    if isinstance(family, LowRank):
        factors = family.precisions_cholesky
        gains, loadings = factors[:, :, :-1].swapaxes(1, 2), family.loadings.swapaxes(1, 2)
        found = (spreads * factors[:, :, -1] ** 2, gains, loadings)
        return _Relations(spreads, logs, None, *map(np.ascontiguousarray, found))
    upper = family.core_factors
    return _Relations(spreads, logs, upper, upper * spreads[: len(upper), :, None])


def _covariances(X: Rows, parameters: Parameters) -> Array | None:
    """Covariance matrices, where columns depend on each other and values are missing."""
    family = parameters.family
    if isinstance(family, Variances) or not np.isnan(X.min()):  # NaN is the least
        return None
    dense = family.dense() if family.matrices is None else family.matrices
    return np.ascontiguousarray(dense)
