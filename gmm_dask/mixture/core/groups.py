"""What a start needs of rows, by the core: groups about centres, and columns in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.core import library

Array = npt.NDArray[np.float64]


def seeds(
    X: Array, k: int, n_trials: int, draws: Array, weight: Array | None = None
) -> npt.NDArray[np.int64]:
    """k of the rows X (n, d) that lie far from one another, (k,).

    Each is the best of `n_trials`, for which there are draws (1 + (k - 1) n_trials,) in [0, 1).
    """
    X, draws, weight = _double(X), _double(draws), None if weight is None else _double(weight)
    chosen = np.empty(k, np.int64)
    parts = (library.address(each) for each in (X, weight, draws, chosen))
    library.call("gmm_seed", library.Seeds(*X.shape, k, n_trials, *parts))
    return chosen


def assigned(
    X: Array, centres: Array, weight: Array | None = None, sweeps: int = 0, still: float = 0.0
) -> npt.NDArray[np.int32]:
    """The nearest of the centres (k, d) to each row of X (n, d), the first of several, (n,).

    Before, the centres move so often to the means of their rows, and one without rows to the row
    that is farthest from its own; or until the sum of their squared ways is at most `still` of the
    columns' mean variance.
    """
    X, centres, weight = _double(X), np.array(centres), None if weight is None else _double(weight)
    (n, d), k = X.shape, len(centres)
    labels, room = np.empty(n, np.int32), np.empty((k, 1 + d))
    at = library.address(room) or 0
    parts = (library.address(each) for each in (X, weight, centres, labels))
    library.call("gmm_settle", library.Groups(n, d, k, sweeps, still, *parts, at, at + 8 * k))
    return labels


def order_of(values: Array) -> npt.NDArray[np.int64]:
    """The places of ascending values (n,), of equal ones in turn; NaN come last."""
    if not library.is_there():
        return np.argsort(values, kind="stable")
    values, order = _double(values), np.empty(len(values), np.int64)
    library.call(
        "gmm_put_in_order",
        library.Column(len(values), library.address(values), None, library.address(order), 0.0),
    )
    return order


def variance_within(values: Array, weight: Array | None = None) -> float:
    """Variance of finite values (n,) about the means of their two best separated parts."""
    values, weight = _double(values), None if weight is None else _double(weight)
    column = library.Column(
        len(values), library.address(values), library.address(weight), None, 0.0
    )
    library.call("gmm_put_in_order", column)
    return float(column.variance_within)


def _double(values: npt.NDArray[Any]) -> Array:
    if values.dtype == np.float64 and values.flags.carray:  # what `require` takes long to see
        return values
    return np.require(values, np.float64, ("C", "A"))
