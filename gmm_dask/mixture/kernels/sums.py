"""Sums of r (x - m) and r (x - m)(x - m)^T, over rows in lanes or over rows in a list."""

from __future__ import annotations

from typing import Any

from gmm_dask.mixture.kernels.compiling import loop
from gmm_dask.mixture.kernels.lanes import (
    Vector,
    add,
    by_kind,
    folded,
    folded_product,
    lanes,
    multiply,
    multiply_add,
    n_lanes,
    square_root,
    subtract,
)
from gmm_dask.mixture.kernels.memory import (
    accumulate,
    load_columns,
    load_lanes,
    load_rows,
    load_whole,
    store,
)

LIST_ROWS = 64  # rows of a component that are weighted and multiplied at once


@loop
def from_mean_double(x: Vector, mean: Any, rest: Any) -> Vector:
    """x - m of float64, whose mean has no rest."""
    return subtract(x, mean)


@loop
def from_mean_single(x: Vector, mean: Any, rest: Any) -> Vector:
    """x - m of float32, of a mean in two parts: m has all its digits."""
    return subtract(subtract(x, mean), rest)


from_mean = by_kind(from_mean_double, from_mean_single)


@loop
def add_products(
    x: Any, mean: Any, rest: Any, resp: Vector, D: Any, sum_x: Any, sum_xx: Any
) -> None:
    """Add a block's r (x - m) and the lower triangle of r (x - m)(x - m)^T, LANES parts of each.

    Parameters
    ----------
    x : (d, ROWS)
    D : (d, ROWS)
        Workspace.
    sum_x : (d, LANES)
    sum_xx : (d, d, LANES)
    """
    for a in range(D.shape[0]):
        difference = from_mean(load_rows(x, (a, 0)), mean[a], rest[a])
        store(D, (a, 0), difference)
        weighted = multiply(resp, difference)
        accumulate(sum_x, (a, 0), folded(weighted))
        for b in range(a + 1):
            accumulate(sum_xx, (a, b, 0), folded_product(weighted, load_rows(D, (b, 0))))


@loop
def add_squares(
    x: Any, mean: Any, rest: Any, resp: Vector, sum_x: Any, sum_xx: Any, n_columns: int
) -> None:
    """Add a block's r (x - m) and r (x - m)^2, each as LANES parts, (d, LANES)."""
    # By the root: a square of its own may not be a float64 where its product with r is.
    root = square_root(resp)
    for a in range(n_columns):
        scaled = multiply(root, from_mean(load_rows(x, (a, 0)), mean[a], rest[a]))
        accumulate(sum_x, (a, 0), folded(multiply(root, scaled)))
        accumulate(sum_xx, (a, 0), folded(multiply(scaled, scaled)))


@loop
def add_listed(
    X: Any, rows: Any, root: Any, mean: Any, rest: Any, W: Any, sum_x: Any, sum_xx: Any
) -> None:
    """Add r (x - m) and the lower triangle of r (x - m)(x - m)^T of the rows X[rows].

    Parameters
    ----------
    rows, root : (n,)
        Row numbers, and the roots of their responsibilities.
    W : (LIST_ROWS + 1, padded d)
        Workspace.
    sum_x : (padded d,)
    sum_xx : (padded d, padded d)
    """
    for start in range(0, len(rows), LIST_ROWS):
        part = slice(start, min(start + LIST_ROWS, len(rows)))
        _weigh(X, rows[part], root[part], mean, rest, W, sum_x)
        n = part.stop - start
        _add_products(W, n, len(mean), sum_xx)


@loop
def _weigh(X: Any, rows: Any, root: Any, mean: Any, rest: Any, W: Any, sum_x: Any) -> None:
    """W = (X[rows] - mean) root, with columns of 0 up to full lanes and a row of 0 below."""
    d, n = len(mean), len(rows)
    step = n_lanes(W)
    for c in range(0, d, step):
        centre, summed = load_columns(mean, c, d - c, W), lanes(W, 0.0)
        left_over, whole = load_columns(rest, c, d - c, W), c + step <= d
        for p in range(n):
            r, at = root[p], (rows[p], c)
            x = load_whole(X, at, W) if whole else load_columns(X, at, d - c, W)
            w = multiply(from_mean(x, centre, left_over), r)
            store(W, (p, c), w)
            summed = multiply_add(w, r, summed)
        store(W, (n, c), lanes(W, 0.0))
        accumulate(sum_x, c, summed)


@loop
def _add_products(W: Any, n: int, d: int, sum_xx: Any) -> None:
    """Blocks of 4 features by 2 vectors of features, whose sums fit into the registers."""
    step = n_lanes(W)
    for a in range(0, d, 4):
        end, c = ((a + 3) // step + 1) * step, 0
        while c + step < end:
            _add_wide(W, n, a, c, sum_xx)
            c += 2 * step
        if c < end:
            _add_narrow(W, n, a, c, sum_xx)


@loop
def _add_wide(W: Any, n: int, a: int, c: int, sum_xx: Any) -> None:
    s0, s1, s2, s3 = lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0)
    t0, t1, t2, t3 = lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0)
    for p in range(n):
        x, y = load_lanes(W, (p, c)), load_lanes(W, (p, c + n_lanes(W)))
        w = lanes(W, W[p, a])
        s0, t0 = multiply_add(x, w, s0), multiply_add(y, w, t0)
        w = lanes(W, W[p, a + 1])
        s1, t1 = multiply_add(x, w, s1), multiply_add(y, w, t1)
        w = lanes(W, W[p, a + 2])
        s2, t2 = multiply_add(x, w, s2), multiply_add(y, w, t2)
        w = lanes(W, W[p, a + 3])
        s3, t3 = multiply_add(x, w, s3), multiply_add(y, w, t3)
    _add_four(sum_xx, a, c, s0, s1, s2, s3)
    _add_four(sum_xx, a, c + n_lanes(W), t0, t1, t2, t3)


@loop
def _add_narrow(W: Any, n: int, a: int, c: int, sum_xx: Any) -> None:
    # Two rows at a time, into sums of their own: one sum would wait for the last addition.
    s0, s1, s2, s3 = lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0)
    t0, t1, t2, t3 = lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0), lanes(W, 0.0)
    for p in range(0, n, 2):
        x, y = load_lanes(W, (p, c)), load_lanes(W, (p + 1, c))
        s0, t0 = multiply_add(x, W[p, a], s0), multiply_add(y, W[p + 1, a], t0)
        s1, t1 = multiply_add(x, W[p, a + 1], s1), multiply_add(y, W[p + 1, a + 1], t1)
        s2, t2 = multiply_add(x, W[p, a + 2], s2), multiply_add(y, W[p + 1, a + 2], t2)
        s3, t3 = multiply_add(x, W[p, a + 3], s3), multiply_add(y, W[p + 1, a + 3], t3)
    _add_four(sum_xx, a, c, add(s0, t0), add(s1, t1), add(s2, t2), add(s3, t3))


@loop
def _add_four(sum_xx: Any, a: int, c: int, s0: Vector, s1: Vector, s2: Vector, s3: Vector) -> None:
    accumulate(sum_xx, (a, c), s0)
    accumulate(sum_xx, (a + 1, c), s1)
    accumulate(sum_xx, (a + 2, c), s2)
    accumulate(sum_xx, (a + 3, c), s3)
