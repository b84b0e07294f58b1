"""What a start needs of rows, by the core: groups about centres, and columns in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.core.library import Column, Distances, Groups, address, call

Array = npt.NDArray[np.float64]


class Assigned(NamedTuple):
    """Rows at the nearest of k centres.

    Parameters
    ----------
    labels : (n,) int32
        The centre of each row, the first of several that are as near.
    held : (k,)
        Weight of the rows of each.
    sums : (k, d)
        Sums of their weights times rows.
    """

    labels: npt.NDArray[np.int32]
    held: Array
    sums: Array


def assigned(X: Array, centres: Array, weight: Array | None = None) -> Assigned:
    """Each row of X (n, d) at the nearest of the centres (k, d); weights (n,) where given."""
    X, centres, weight = _double(X), _double(centres), None if weight is None else _double(weight)
    n, d = X.shape
    found = Assigned(np.empty(n, np.int32), np.zeros(len(centres)), np.zeros(centres.shape))
    parts = (address(each) for each in (X, weight, centres, *found))
    call("gmm_assign", Groups(n, d, len(centres), *parts))
    return found


def squared_distances(X: Array, centres: Array, before: Array | None = None) -> Array:
    """Squared distances (c, n) of rows X (n, d) to centres (c, d), at most `before` (n,)."""
    X, centres, before = _double(X), _double(centres), None if before is None else _double(before)
    found = np.empty((len(centres), len(X)))
    parts = (address(each) for each in (X, centres, before, found))
    call("gmm_measure", Distances(*X.shape, len(centres), *parts))
    return found


def order_of(values: Array) -> npt.NDArray[np.int64]:
    """The places of ascending values (n,), of equal ones in turn; NaN come last."""
    values, order = _double(values), np.empty(len(values), np.int64)
    call("gmm_put_in_order", Column(len(values), address(values), None, address(order), 0.0))
    return order


def variance_within(values: Array, weight: Array | None = None) -> float:
    """Variance of finite values (n,) about the means of their two best separated parts."""
    values, weight = _double(values), None if weight is None else _double(weight)
    column = Column(len(values), address(values), address(weight), None, 0.0)
    call("gmm_put_in_order", column)
    return float(column.variance_within)


def _double(values: npt.NDArray[Any]) -> Array:
    if values.dtype == np.float64 and values.flags.carray:  # what `require` takes long to see
        return values
    return np.require(values, np.float64, ("C", "A"))
