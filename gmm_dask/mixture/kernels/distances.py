"""Squared Mahalanobis distances of a block of ROWS rows, held transposed (d, ROWS)."""

from __future__ import annotations

from typing import Any

from gmm_dask.mixture.kernels.compiling import inlined, loop
from gmm_dask.mixture.kernels.lanes import (
    SUMS,
    Vector,
    any_greater,
    any_within,
    multiply,
    multiply_add,
    rows,
    subtract,
)
from gmm_dask.mixture.kernels.memory import load_rows


@inlined
def of_matrix_by_four(x: Any, mean: Any, factor: Any, n_columns: int, limit: Vector) -> Vector:
    """|U^T (x - m)|^2 over the first columns of U; stops where no row is under its limit.

    The sum over the first columns is the distance in the first features alone, and never more
    than the whole.
    """
    squares, c = rows(x, 0.0), 0
    while c + 4 <= n_columns:
        squares = four_columns(x, mean, factor, c, squares)
        c += 4
        if not any_greater(limit, squares):
            return squares
    if c + 2 <= n_columns:
        squares = two_columns(x, mean, factor, c, squares)
        c += 2
    return squares if c == n_columns else last_column(x, mean, factor, c, squares)


@inlined
def of_matrix_by_two(x: Any, mean: Any, factor: Any, n_columns: int, limit: Vector) -> Vector:
    """The same with fewer registers."""
    squares, c = rows(x, 0.0), 0
    while c + 2 <= n_columns:
        squares = two_columns(x, mean, factor, c, squares)
        c += 2
        if c % 4 == 0 and not any_greater(limit, squares):
            return squares
    return squares if c == n_columns else last_column(x, mean, factor, c, squares)


@inlined
def four_columns(x: Any, mean: Any, factor: Any, c: int, squares: Vector) -> Vector:
    """Add the squares of columns c to c + 3 of U^T (x - m): four sums in the registers."""
    z0, z1, z2, z3 = rows(x, 0.0), rows(x, 0.0), rows(x, 0.0), rows(x, 0.0)
    for i in range(c + 1):
        D = subtract(load_rows(x, (i, 0)), mean[i])
        z0 = multiply_add(D, factor[i, c], z0)
        z1 = multiply_add(D, factor[i, c + 1], z1)
        z2 = multiply_add(D, factor[i, c + 2], z2)
        z3 = multiply_add(D, factor[i, c + 3], z3)
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
    return multiply_add(z3, z3, squares)


@inlined
def two_columns(x: Any, mean: Any, factor: Any, c: int, squares: Vector) -> Vector:
    """Add the squares of columns c and c + 1: two sums."""
    z0, z1 = rows(x, 0.0), rows(x, 0.0)
    for i in range(c + 1):
        D = subtract(load_rows(x, (i, 0)), mean[i])
        z0 = multiply_add(D, factor[i, c], z0)
        z1 = multiply_add(D, factor[i, c + 1], z1)
    D = subtract(load_rows(x, (c + 1, 0)), mean[c + 1])
    z1 = multiply_add(D, factor[c + 1, c + 1], z1)
    squares = multiply_add(z0, z0, squares)
    return multiply_add(z1, z1, squares)


@inlined
def last_column(x: Any, mean: Any, factor: Any, c: int, squares: Vector) -> Vector:
    """Add the square of column c."""
    z = rows(x, 0.0)
    for i in range(c + 1):
        z = multiply_add(subtract(load_rows(x, (i, 0)), mean[i]), factor[i, c], z)
    return multiply_add(z, z, squares)


@loop
def bound_by_four(y: Any, offset: Any, factor: Any, limit: Vector) -> Vector:
    """|U^T y - U^T m|^2 of projected rows y (n, ROWS), n a multiple of 4.

    Stops where every row is above its limit. Means are taken off last: what that rounds away a
    bound need not know.
    """
    squares, n = rows(y, 0.0), offset.shape[0]
    for c in range(0, n, 4):
        squares = four_bounds(y, offset, factor, c, squares)
        if not any_within(squares, limit):
            return squares
    return squares


@loop
def bound_by_two(y: Any, offset: Any, factor: Any, limit: Vector) -> Vector:
    """The same with fewer registers."""
    squares, n = rows(y, 0.0), offset.shape[0]
    for c in range(0, n, 2):
        squares = two_bounds(y, offset, factor, c, squares)
        if not any_within(squares, limit):
            return squares
    return squares


@inlined
def four_bounds(y: Any, offset: Any, factor: Any, c: int, squares: Vector) -> Vector:
    """Add the squares of columns c to c + 3 of U^T y - U^T m: four sums in the registers."""
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
    return multiply_add(z3, z3, squares)


@inlined
def two_bounds(y: Any, offset: Any, factor: Any, c: int, squares: Vector) -> Vector:
    """Add the squares of columns c and c + 1: two sums."""
    z0, z1 = rows(y, -offset[c]), rows(y, -offset[c + 1])
    for i in range(c + 1):
        v = load_rows(y, (i, 0))
        z0 = multiply_add(v, factor[i, c], z0)
        z1 = multiply_add(v, factor[i, c + 1], z1)
    z1 = multiply_add(load_rows(y, (c + 1, 0)), factor[c + 1, c + 1], z1)
    squares = multiply_add(z0, z0, squares)
    return multiply_add(z1, z1, squares)


@inlined
def of_variances(x: Any, mean: Any, factor: Any, n_columns: int) -> Vector:
    """Sum of ((x - m) / sd)^2."""
    squares = rows(x, 0.0)
    for i in range(n_columns):
        z = multiply(subtract(load_rows(x, (i, 0)), mean[i]), factor[i])
        squares = multiply_add(z, z, squares)
    return squares


of_matrix = of_matrix_by_four if SUMS == 4 else of_matrix_by_two
bound_of = bound_by_four if SUMS == 4 else bound_by_two
