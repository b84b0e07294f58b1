"""Rows of a tile in blocks of ROWS, transposed; and an order in which like rows stand together."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from gmm_dask.mixture.kernels.distances import of_matrix
from gmm_dask.mixture.kernels.lanes import (
    ROWS,
    multiply_add,
    rows,
    store,
    where_greater,
)

FEW_GUESSING, MORE_GUESSING = 4, 12  # columns whose marginal tells the probable component


@numba.njit(nogil=True, error_model="numpy")
def transpose(X: Any, order: Any, start: int, n_columns: int, x: Any) -> None:
    """The rows order[start : start + ROWS] of X as columns of x (n_columns, ROWS), in float64."""
    for lane in range(ROWS):
        row = order[start + lane]
        for i in range(n_columns):
            x[i, lane] = X[row, i]


@numba.njit(nogil=True, error_model="numpy")
def guess_columns(d: int) -> int:
    """How many columns to guess by: of many columns a few say little."""
    return min(MORE_GUESSING, max(FEW_GUESSING, d // 16 * 4))


@numba.njit(nogil=True, error_model="numpy")
def sort_by_guess(
    X: Any, means: Any, factors: Any, log_weights: Any, order: Any, n_rows: int, work: Any
) -> None:
    """Put rows that are probably of the same component side by side.

    Parameters
    ----------
    order : (tile,)
        Row numbers, of which the first n_rows are put in order; the rest repeats one of them.
    work : x (d, ROWS), guess (tile,), sorted (tile,), ends (k + 1,)
    """
    x, guess, placed, ends = work
    k, n_columns = means.shape[0], guess_columns(X.shape[1])
    ends[:] = 0
    for start in range(0, n_rows, ROWS):
        transpose(X, order, start, n_columns, x)
        best, nearest = rows(-math.inf), rows(0.0)
        for j in range(k):
            factor = factors[j % factors.shape[0]]
            squares = of_matrix(x, means[j], factor, n_columns, rows(math.inf))
            log_joint = multiply_add(squares, -0.5, rows(log_weights[j]))
            nearest = where_greater(log_joint, best, rows(float(j)), nearest)
            best = where_greater(log_joint, best, log_joint, best)
        store(guess, start, nearest)
    for t in range(n_rows):
        ends[int(guess[t]) + 1] += 1
    for j in range(k):
        ends[j + 1] += ends[j]
    for t in range(n_rows):
        j = int(guess[t])
        placed[ends[j]] = order[t]
        ends[j] += 1
    order[:n_rows] = placed[:n_rows]


@numba.njit(nogil=True, error_model="numpy")
def load_weights(weights: Any, order: Any, start: int, n_rows: int, out: Any) -> None:
    """Weights of a block's rows; 1 where there are none, and 0 for lanes without a row."""
    for lane in range(ROWS):
        t = start + lane
        if t >= n_rows:
            out[lane] = 0.0
        else:
            out[lane] = weights[order[t]] if weights.shape[0] else 1.0


@numba.njit(nogil=True, error_model="numpy")
def workspace(n_rows: int, n_columns: int) -> Any:
    """An array whose first element begins a cache line, which no vector then straddles."""
    n = n_rows * n_columns
    raw = np.empty(n + 8)
    skip = (-(raw.ctypes.data // 8)) % 8
    return raw[skip : skip + n].reshape(n_rows, n_columns)


@numba.njit(nogil=True, error_model="numpy")
def collect(root_of: Any, order: Any, start: int, listed: Any, root: Any, count: int) -> int:
    """Append the block's rows that have a share (ROWS,), and the roots of their shares."""
    for lane in range(ROWS):
        listed[count] = order[start + lane]
        root[count] = root_of[lane]
        count += root_of[lane] > 0
    return count
