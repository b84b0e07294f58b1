"""Squared Mahalanobis distances of a block of ROWS rows, held transposed (d, ROWS)."""

from __future__ import annotations

from typing import Any

import numba

from gmm_dask.mixture.kernels.lanes import (
    Vector,
    any_greater,
    any_within,
    multiply,
    multiply_add,
    rows,
    subtract,
)
from gmm_dask.mixture.kernels.memory import load_rows


@numba.njit(nogil=True, error_model="numpy")
def of_matrix(x: Any, mean: Any, factor: Any, n_columns: int, limit: Vector) -> Vector:
    """|U^T (x - m)|^2 over the first columns of U; stops where no row is under its limit.

    The sum over the first columns is the distance in the first features alone, and never more
    than the whole. Four columns at a time: their sums and the rows fit into the registers.
    """
    squares = rows(x, 0.0)
    c = 0
    while c + 4 <= n_columns:
        z0, z1, z2, z3 = rows(x, 0.0), rows(x, 0.0), rows(x, 0.0), rows(x, 0.0)
        for i in range(c):
            D = subtract(load_rows(x, (i, 0)), mean[i])
            z0 = multiply_add(D, factor[i, c], z0)
            z1 = multiply_add(D, factor[i, c + 1], z1)
            z2 = multiply_add(D, factor[i, c + 2], z2)
            z3 = multiply_add(D, factor[i, c + 3], z3)
        D = subtract(load_rows(x, (c, 0)), mean[c])
        z0 = multiply_add(D, factor[c, c], z0)
        z1 = multiply_add(D, factor[c, c + 1], z1)
        z2 = multiply_add(D, factor[c, c + 2], z2)
        z3 = multiply_add(D, factor[c, c + 3], z3)
        D = subtract(load_rows(x, (c + 1, 0)), mean[c + 1])
        z1 = multiply_add(D, factor[c + 1, c + 1], z1)
        z2 = multiply_add(D, factor[c + 1, c + 2], z2)
        z3 = multiply_add(D, factor[c + 1, c + 3], z3)
        D = subtract(load_rows(x, (c + 2, 0)), mean[c + 2])
        z2 = multiply_add(D, factor[c + 2, c + 2], z2)
        z3 = multiply_add(D, factor[c + 2, c + 3], z3)
        D = subtract(load_rows(x, (c + 3, 0)), mean[c + 3])
        z3 = multiply_add(D, factor[c + 3, c + 3], z3)
        squares = multiply_add(z0, z0, squares)
        squares = multiply_add(z1, z1, squares)
        squares = multiply_add(z2, z2, squares)
        squares = multiply_add(z3, z3, squares)
        c += 4
        if not any_greater(limit, squares):
            return squares
    while c < n_columns:
        z = rows(x, 0.0)
        for i in range(c + 1):
            z = multiply_add(subtract(load_rows(x, (i, 0)), mean[i]), factor[i, c], z)
        squares = multiply_add(z, z, squares)
        c += 1
    return squares


@numba.njit(nogil=True, error_model="numpy")
def bound_of(y: Any, offset: Any, factor: Any, limit: Vector) -> Vector:
    """|U^T y - U^T m|^2 of projected rows y (n, ROWS), n a multiple of 4.

    Stops where every row is above its limit. Means are taken off last: what that rounds away a
    bound need not know.
    """
    squares, n = rows(y, 0.0), offset.shape[0]
    for c in range(0, n, 4):
        z0, z1 = rows(y, -offset[c]), rows(y, -offset[c + 1])
        z2, z3 = rows(y, -offset[c + 2]), rows(y, -offset[c + 3])
        for i in range(c + 1):
            v = load_rows(y, (i, 0))
            z0 = multiply_add(v, factor[i, c], z0)
            z1 = multiply_add(v, factor[i, c + 1], z1)
            z2 = multiply_add(v, factor[i, c + 2], z2)
            z3 = multiply_add(v, factor[i, c + 3], z3)
        v = load_rows(y, (c + 1, 0))
        z1 = multiply_add(v, factor[c + 1, c + 1], z1)
        z2 = multiply_add(v, factor[c + 1, c + 2], z2)
        z3 = multiply_add(v, factor[c + 1, c + 3], z3)
        v = load_rows(y, (c + 2, 0))
        z2 = multiply_add(v, factor[c + 2, c + 2], z2)
        z3 = multiply_add(v, factor[c + 2, c + 3], z3)
        z3 = multiply_add(load_rows(y, (c + 3, 0)), factor[c + 3, c + 3], z3)
        squares = multiply_add(z0, z0, squares)
        squares = multiply_add(z1, z1, squares)
        squares = multiply_add(z2, z2, squares)
        squares = multiply_add(z3, z3, squares)
        if not any_within(squares, limit):
            return squares
    return squares


@numba.njit(nogil=True, error_model="numpy")
def of_variances(x: Any, mean: Any, factor: Any, n_columns: int) -> Vector:
    """Sum of ((x - m) / sd)^2."""
    squares = rows(x, 0.0)
    for i in range(n_columns):
        z = multiply(subtract(load_rows(x, (i, 0)), mean[i]), factor[i])
        squares = multiply_add(z, z, squares)
    return squares
