"""Rows of a tile in blocks of ROWS, transposed; and an order in which like rows stand together."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from gmm_dask.mixture.kernels.lanes import (
    LANES,
    ROWS,
    lanes,
    larger,
    load_columns,
    load_lanes,
    load_rows,
    multiply_add,
    rows,
    store,
    subtract,
    transpose_square,
    where_greater,
)

GUESSING = 8  # directions that tell the probable component
AT_ONCE = 8  # rows projected at once, whose sums fit into the registers


@numba.njit(nogil=True, error_model="numpy")
def transpose(X: Any, order: Any, start: int, n_columns: int, x: Any) -> None:
    """The rows order[start : start + ROWS] of X as columns of x, in float64.

    Parameters
    ----------
    x : (n_columns filled up to LANES, ROWS)
    """
    for column in range(0, n_columns, LANES):
        for lane in range(0, ROWS, LANES):
            transpose_square(X, order, start + lane, column, n_columns - column, x, lane)


@numba.njit(nogil=True, error_model="numpy")
def project(X: Any, start: int, n_rows: int, centre: Any, directions: Any, D: Any, y: Any) -> None:
    """The rows X[start : start + n_rows] less the centre, in some directions: y (n_rows, r).

    Parameters
    ----------
    directions : (d, r), r a multiple of LANES
    D : (AT_ONCE, padded d)
        Workspace.
    """
    d, n_directions = directions.shape
    for t in range(0, n_rows, AT_ONCE):
        n = min(AT_ONCE, n_rows - t)
        for p in range(n):
            for i in range(0, d, LANES):
                at, left = (start + t + p, i), d - i
                row = load_lanes(X, at) if left >= LANES else load_columns(X, at, left)
                store(D, (p, i), subtract(row, load_columns(centre, i, left)))
        for c in range(0, n_directions, LANES):
            y0, y1, y2, y3 = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
            y4, y5, y6, y7 = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
            for i in range(d):
                v = load_lanes(directions, (i, c))
                y0 = multiply_add(v, D[0, i], y0)
                y1 = multiply_add(v, D[1, i], y1)
                y2 = multiply_add(v, D[2, i], y2)
                y3 = multiply_add(v, D[3, i], y3)
                y4 = multiply_add(v, D[4, i], y4)
                y5 = multiply_add(v, D[5, i], y5)
                y6 = multiply_add(v, D[6, i], y6)
                y7 = multiply_add(v, D[7, i], y7)
            store(y, (t, c), y0)
            store(y, (t + 1, c), y1)
            store(y, (t + 2, c), y2)
            store(y, (t + 3, c), y3)
            store(y, (t + 4, c), y4)
            store(y, (t + 5, c), y5)
            store(y, (t + 6, c), y6)
            store(y, (t + 7, c), y7)


@numba.njit(nogil=True, error_model="numpy")
def load_projected(projected: Any, order: Any, t: int, start: int, y: Any) -> None:
    """What was projected of the rows order[t : t + ROWS], as columns of y (n, ROWS)."""
    for lane in range(ROWS):
        row = order[t + lane] - start
        for i in range(y.shape[0]):
            y[i, lane] = projected[row, i]


@numba.njit(nogil=True, error_model="numpy")
def sort_by_guess(means: Any, biases: Any, order: Any, start: int, n_rows: int, work: Any) -> None:
    """Put rows that are probably of the same component side by side.

    That is the one whose mean is nearest in pooled standard deviations, log weights considered:
    the linear discriminant rule.

    Parameters
    ----------
    means : (k, n)
    biases : (k,)
    order : (tile,)
        Row numbers from start on, of which the first n_rows are put in order.
    work : y (n, ROWS), projected (tile, r), guess (tile,), sorted (tile,), ends (k + 1,)
    """
    y, projected, guess, placed, ends = work
    k, n = means.shape[0], min(GUESSING, means.shape[1])
    ends[:] = 0
    for t in range(0, n_rows, ROWS):
        load_projected(projected, order, t, start, y[:n])
        best, nearest = rows(-math.inf), rows(0.0)
        for j in range(k):
            score = rows(biases[j])
            for i in range(n):
                score = multiply_add(load_rows(y, (i, 0)), means[j, i], score)
            nearest = where_greater(score, best, rows(float(j)), nearest)
            best = larger(score, best)
        store(guess, t, nearest)
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
    if not weights.shape[0] and start + ROWS <= n_rows:
        store(out, 0, rows(1.0))
        return
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
