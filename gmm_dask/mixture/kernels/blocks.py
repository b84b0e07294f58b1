"""Rows of a tile in blocks of ROWS, transposed; and an order in which like rows stand together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gmm_dask.mixture.kernels.compiling import inlined, loop, makes_arrays
from gmm_dask.mixture.kernels.lanes import (
    lanes,
    larger,
    multiply_add,
    n_lanes,
    n_rows,
    rows,
    subtract,
    where_greater,
)
from gmm_dask.mixture.kernels.memory import (
    load_columns,
    load_lanes,
    load_rows,
    load_whole,
    split_2,
    split_3,
    store,
    transpose_square,
)

GUESSING = 8  # directions that tell the probable component
AT_ONCE = 8  # rows projected at once, whose sums fit into the registers


@inlined
def transpose(X: Any, order: Any, start: int, n_columns: int, x: Any) -> None:
    """The rows order[start : start + ROWS] of X as columns of x, in its kind of float.

    Parameters
    ----------
    x : (n_columns filled up to LANES, ROWS)
    """
    step, first = n_lanes(x), order[start]
    in_a_row = order[start + n_rows(x) - 1] - first == n_rows(x) - 1
    if in_a_row and X.shape[1] == n_columns and 2 <= n_columns <= 3:  # so few are never sorted
        for lane in range(0, n_rows(x), step):
            if n_columns == 2:
                split_2(X, first + lane, x, lane)
            else:
                split_3(X, first + lane, x, lane)
        return
    for column in range(0, n_columns, step):
        for lane in range(0, n_rows(x), step):
            transpose_square(X, order, start + lane, column, n_columns - column, x, lane)


@loop
def project(X: Any, centre: Any, directions: Any, D: Any, y: Any) -> None:
    """The rows X less the centre, in some directions: y (n, r).

    Parameters
    ----------
    directions : (d, r), r a multiple of LANES
    D : (AT_ONCE, padded d)
        Workspace.
    """
    (d, n_directions), count = directions.shape, X.shape[0]
    step = n_lanes(D)
    for t in range(0, count, AT_ONCE):
        n = min(AT_ONCE, count - t)
        for p in range(n):
            for i in range(0, d, step):
                at, left = (t + p, i), d - i
                row = load_whole(X, at, D) if left >= step else load_columns(X, at, left, D)
                store(D, (p, i), subtract(row, load_columns(centre, i, left, D)))
        for c in range(0, n_directions, step):
            y0, y1, y2, y3 = lanes(D, 0.0), lanes(D, 0.0), lanes(D, 0.0), lanes(D, 0.0)
            y4, y5, y6, y7 = lanes(D, 0.0), lanes(D, 0.0), lanes(D, 0.0), lanes(D, 0.0)
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


@loop
def sort_by_guess(means: Any, biases: Any, order: Any, count: int, work: Any) -> None:
    """Put rows that are probably of the same component side by side.

    That is the one whose mean is nearest in pooled standard deviations, log weights considered:
    the linear discriminant rule.

    Parameters
    ----------
    means : (k, n)
    biases : (k,)
    order : (tile,)
        Row numbers, of which the first count are put in order.
    work : y (n, ROWS), projected (tile, r), guess (tile,), sorted (tile,), ends (k + 1,)
    """
    y, projected, guess, placed, ends = work
    k, n = means.shape[0], min(GUESSING, means.shape[1])
    ends[:] = 0
    for t in range(0, count, n_rows(y)):
        transpose(projected, order, t, n, y)
        best, nearest = rows(y, -math.inf), rows(y, 0.0)
        for j in range(k):
            score = rows(y, biases[j])
            for i in range(n):
                score = multiply_add(load_rows(y, (i, 0)), means[j, i], score)
            nearest = where_greater(score, best, rows(y, float(j)), nearest)
            best = larger(score, best)
        store(guess, t, nearest)
    for t in range(count):
        ends[int(guess[t]) + 1] += 1
    for j in range(k):
        ends[j + 1] += ends[j]
    for t in range(count):
        j = int(guess[t])
        placed[ends[j]] = order[t]
        ends[j] += 1
    for t in range(count):
        order[t] = placed[t]


@inlined
def load_weights(weights: Any, order: Any, start: int, count: int, out: Any) -> None:
    """Weights of a block's rows; 1 where there are none, and 0 for lanes without a row."""
    if not weights.shape[0] and start + n_rows(out) <= count:
        store(out, 0, rows(out, 1.0))
        return
    for lane in range(n_rows(out)):
        t = start + lane
        if t >= count:
            out[lane] = 0.0
        else:
            out[lane] = weights[order[t]] if weights.shape[0] else 1.0


@makes_arrays
def workspace(n_rows: int, n_columns: int, like: Any) -> Any:
    """An array of the kind of another whose first element begins a cache line.

    No vector then straddles two of them.
    """
    n = n_rows * n_columns
    raw = np.empty(n + 64 // like.itemsize, like.dtype)
    skip = (-(raw.ctypes.data // like.itemsize)) % (64 // like.itemsize)
    return raw[skip : skip + n].reshape(n_rows, n_columns)


@loop
def collect(root_of: Any, order: Any, start: int, listed: Any, root: Any, count: int) -> int:
    """Append the block's rows that have a share (ROWS,), and the roots of their shares."""
    for lane in range(n_rows(root_of)):
        listed[count] = order[start + lane]
        root[count] = root_of[lane]
        count += root_of[lane] > 0
    return count
