"""Sums of r (x - m) and r (x - m)(x - m)^T, over rows in lanes or over rows in a list."""

from __future__ import annotations

import math
from typing import Any

import numba

from gmm_dask.mixture.kernels.lanes import (
    LANES,
    Vector,
    add,
    folded,
    lanes,
    load_lanes,
    load_rows,
    multiply,
    multiply_add,
    square_root,
    store,
    subtract,
)

LIST_ROWS = 64  # rows of a component that are weighted and multiplied at once


@numba.njit(nogil=True, error_model="numpy")
def add_products(x: Any, mean: Any, resp: Vector, sum_x: Any, sum_xx: Any, n_columns: int) -> None:
    """Add a block's r (x - m) and the lower triangle of r (x - m)(x - m)^T, LANES parts of each.

    Parameters
    ----------
    x : (d, ROWS)
    sum_x : (d, LANES)
    sum_xx : (d, d, LANES)
    """
    for a in range(n_columns):
        weighted = multiply(resp, subtract(load_rows(x, (a, 0)), mean[a]))
        store(sum_x, (a, 0), add(load_lanes(sum_x, (a, 0)), folded(weighted)))
        for b in range(a + 1):
            product = multiply(weighted, subtract(load_rows(x, (b, 0)), mean[b]))
            store(sum_xx, (a, b, 0), add(load_lanes(sum_xx, (a, b, 0)), folded(product)))


@numba.njit(nogil=True, error_model="numpy")
def add_squares(x: Any, mean: Any, resp: Vector, sum_x: Any, sum_xx: Any, n_columns: int) -> None:
    """Add a block's r (x - m) and r (x - m)^2, each as LANES parts, (d, LANES)."""
    # By the root: a square of its own may not be a float64 where its product with r is.
    root = square_root(resp)
    for a in range(n_columns):
        scaled = multiply(root, subtract(load_rows(x, (a, 0)), mean[a]))
        store(sum_x, (a, 0), add(load_lanes(sum_x, (a, 0)), folded(multiply(root, scaled))))
        store(sum_xx, (a, 0), add(load_lanes(sum_xx, (a, 0)), folded(multiply(scaled, scaled))))


@numba.njit(nogil=True, error_model="numpy")
def add_listed(
    X: Any, mean: Any, listed: Any, resp: Any, count: int, sum_x: Any, sum_xx: Any, scaled: Any
) -> None:
    """Add r (x - m) and the lower triangle of r (x - m)(x - m)^T of some rows of X.

    Parameters
    ----------
    listed, resp : (n,)
        Row numbers and their responsibilities, of which the first `count` are used.
    sum_x : (padded d,)
    sum_xx : (padded d, padded d)
    scaled : (LIST_ROWS, padded d)
    """
    for first in range(0, count, LIST_ROWS):
        n = min(LIST_ROWS, count - first)
        _scale(X, mean, listed[first : first + n], resp[first : first + n], sum_x, scaled)
        _add_products_of(scaled, n, X.shape[1], sum_xx)


@numba.njit(nogil=True, error_model="numpy")
def _scale(X: Any, mean: Any, listed: Any, resp: Any, sum_x: Any, scaled: Any) -> None:
    """Rows sqrt(r) (x - m), and their r (x - m) added to sum_x."""
    n, d = len(listed), X.shape[1]
    for p in range(n):
        root, row = math.sqrt(resp[p]), listed[p]
        for i in range(d):
            scaled[p, i] = root * (X[row, i] - mean[i])
    for column in range(0, scaled.shape[1], LANES):
        total = load_lanes(sum_x, column)
        for p in range(n):
            total = multiply_add(load_lanes(scaled, (p, column)), lanes(math.sqrt(resp[p])), total)
        store(sum_x, column, total)


@numba.njit(nogil=True, error_model="numpy")
def _add_products_of(scaled: Any, n: int, d: int, sum_xx: Any) -> None:
    """scaled^T scaled, lower triangle, four rows by two vectors in registers."""
    for a in range(0, scaled.shape[1], 4):
        if a >= d:
            break
        for b in range(0, a + 4, 2 * LANES):
            if b + LANES < scaled.shape[1] and b + LANES < a + 4:
                _add_two(scaled, n, a, b, sum_xx)
            else:
                _add_one(scaled, n, a, b, sum_xx)


@numba.njit(nogil=True, error_model="numpy")
def _add_two(scaled: Any, n: int, a: int, b: int, sum_xx: Any) -> None:
    u0, v0 = load_lanes(sum_xx, (a, b)), load_lanes(sum_xx, (a, b + LANES))
    u1, v1 = load_lanes(sum_xx, (a + 1, b)), load_lanes(sum_xx, (a + 1, b + LANES))
    u2, v2 = load_lanes(sum_xx, (a + 2, b)), load_lanes(sum_xx, (a + 2, b + LANES))
    u3, v3 = load_lanes(sum_xx, (a + 3, b)), load_lanes(sum_xx, (a + 3, b + LANES))
    for p in range(n):
        x, y = load_lanes(scaled, (p, b)), load_lanes(scaled, (p, b + LANES))
        u0, v0 = multiply_add(x, scaled[p, a], u0), multiply_add(y, scaled[p, a], v0)
        u1, v1 = multiply_add(x, scaled[p, a + 1], u1), multiply_add(y, scaled[p, a + 1], v1)
        u2, v2 = multiply_add(x, scaled[p, a + 2], u2), multiply_add(y, scaled[p, a + 2], v2)
        u3, v3 = multiply_add(x, scaled[p, a + 3], u3), multiply_add(y, scaled[p, a + 3], v3)
    store(sum_xx, (a, b), u0)
    store(sum_xx, (a, b + LANES), v0)
    store(sum_xx, (a + 1, b), u1)
    store(sum_xx, (a + 1, b + LANES), v1)
    store(sum_xx, (a + 2, b), u2)
    store(sum_xx, (a + 2, b + LANES), v2)
    store(sum_xx, (a + 3, b), u3)
    store(sum_xx, (a + 3, b + LANES), v3)


@numba.njit(nogil=True, error_model="numpy")
def _add_one(scaled: Any, n: int, a: int, b: int, sum_xx: Any) -> None:
    u0, u1 = load_lanes(sum_xx, (a, b)), load_lanes(sum_xx, (a + 1, b))
    u2, u3 = load_lanes(sum_xx, (a + 2, b)), load_lanes(sum_xx, (a + 3, b))
    for p in range(n):
        x = load_lanes(scaled, (p, b))
        u0, u1 = multiply_add(x, scaled[p, a], u0), multiply_add(x, scaled[p, a + 1], u1)
        u2, u3 = multiply_add(x, scaled[p, a + 2], u2), multiply_add(x, scaled[p, a + 3], u3)
    store(sum_xx, (a, b), u0)
    store(sum_xx, (a + 1, b), u1)
    store(sum_xx, (a + 2, b), u2)
    store(sum_xx, (a + 3, b), u3)
