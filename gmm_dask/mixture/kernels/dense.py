"""One fused pass over a tile of rows: densities, log-sum-exp, responsibilities, sums.

Components that are out of reach are left alone: the sum over the first columns of a triangular
factor is a lower bound of the distance, and a responsibility under e^-42 adds nothing to a sum.
Rows that are probably of one component stand side by side, so that whole blocks skip the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from gmm_dask.mixture.kernels.blocks import (
    collect,
    load_weights,
    sort_by_guess,
    transpose,
    workspace,
)
from gmm_dask.mixture.kernels.distances import of_matrix, of_variances
from gmm_dask.mixture.kernels.elementary import exp, log
from gmm_dask.mixture.kernels.lanes import (
    ROWS,
    Vector,
    add,
    any_greater,
    bits_greater,
    divide,
    larger,
    load_rows,
    multiply,
    multiply_add,
    rows,
    square_root,
    store,
    subtract,
    total,
    where_greater,
)
from gmm_dask.mixture.kernels.sums import LIST_ROWS, add_listed, add_products, add_squares

TILE_ROWS = 1024
FEW_COLUMNS = 8  # up to which sums are taken over rows in lanes; beyond, over rows in a list
SORTED_FROM = 12  # columns; with fewer, sorting costs more than it saves
OUT_OF_REACH = -42.0  # log of a responsibility that is nothing in float64
FAR, FAR_OUT_OF_REACH = -1000.0, -150.0  # of a row with squared distances that may outweigh that


@numba.njit(nogil=True, error_model="numpy")
def reach(largest: Vector) -> Vector:
    """Log responsibility down to which a component counts, for rows of this log-density."""
    return where_greater(largest, FAR, rows(OUT_OF_REACH), rows(FAR_OUT_OF_REACH))


@numba.njit(nogil=True, error_model="numpy")
def log_joints(
    x: Any, means: Any, factors: Any, log_weights: Any, first: int, is_matrix: bool, out: Any
) -> Vector:
    """Write log weight times density of a block's rows to out (k, ROWS); the largest of each row.

    Where a component is out of reach of all rows of the block, an upper bound is written.
    """
    largest = rows(-math.inf)
    k, d = means.shape
    for place in range(k):
        # The probable component first: it bounds what the others can be.
        j = first if place == 0 else place - 1 if place <= first else place
        factor, log_weight = factors[j % factors.shape[0]], log_weights[j]
        limit = multiply(subtract(subtract(rows(log_weight), largest), reach(largest)), 2.0)
        if is_matrix:
            squares = of_matrix(x, means[j], factor, d, limit)
        else:
            squares = of_variances(x, means[j], factor[0], d)
        log_joint = multiply_add(squares, -0.5, rows(log_weight))
        store(out, (j, 0), log_joint)
        largest = larger(log_joint, largest)
    return largest


@numba.njit(nogil=True, error_model="numpy")
def shares(out: Any, largest: Vector, k: int) -> Vector:
    """Turn log joints (k, ROWS) into densities in units of the largest; their sum."""
    least, summed = reach(largest), rows(0.0)
    for j in range(k):
        difference = subtract(load_rows(out, (j, 0)), largest)
        if any_greater(difference, least):
            share = where_greater(difference, least, exp(difference), rows(0.0))
            summed = add(summed, share)
            store(out, (j, 0), share)
        else:
            store(out, (j, 0), rows(0.0))
    return summed


@numba.njit(nogil=True, error_model="numpy")
def note_far(near: Any, x: Any, order: Any, start: int, n_rows: int, far: Any, n_far: int) -> int:
    """Add the block's rows whose densities say nothing to the list; how many it has then.

    Their lanes of x become 0: nothing of them is added, and 0 times infinity would be.
    """
    for lane in range(min(ROWS, n_rows - start)):
        if not (near >> np.uint64(lane)) & np.uint64(1):
            x[:, lane] = 0.0
            if n_far < far.shape[0]:
                far[n_far] = order[start + lane]
            n_far += 1
    return n_far


@numba.njit(nogil=True, error_model="numpy")
def arrange_tile(
    X: Any,
    means: Any,
    factors: Any,
    log_weights: Any,
    is_matrix: bool,
    start: int,
    order: Any,
    work: Any,
) -> tuple[int, bool]:
    """Row numbers of the tile that begins at start: how many, and whether they were sorted.

    Lanes beyond its end repeat the last row.
    """
    k, d = means.shape
    n_rows = min(TILE_ROWS, X.shape[0] - start)
    for t in range(TILE_ROWS):
        order[t] = start + min(t, n_rows - 1)
    is_sorted = is_matrix and d >= SORTED_FROM and k > 1
    if is_sorted:
        sort_by_guess(X, means, factors, log_weights, order, n_rows, work)
    return n_rows, is_sorted


def _sources() -> int:
    """A number that changes with any source of this package: what is cached was compiled of it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest()[:6])


def _made(sources: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two loops; they close over `sources`, which so becomes part of the cache's key."""

    def expectation(
        X: Any,
        weights: Any,
        means: Any,
        factors: Any,
        log_weights: Any,
        is_matrix: bool,
        far_limit: float,
        sums: Any,
        far: Any,
        density: Any,
    ) -> Any:
        """Add the rows' statistics to sums; log-likelihood, and how many rows are far."""
        n, d = X.shape
        k = means.shape[0]
        sum_resp, sum_x, sum_xx, part_x, part_xx = sums
        x, joint, weight = workspace(d, ROWS), workspace(k, ROWS), workspace(1, ROWS)[0]
        order, guess = np.empty(TILE_ROWS, np.int64), workspace(1, TILE_ROWS)[0]
        work = (x, guess, np.empty(TILE_ROWS, np.int64), np.empty(k + 1, np.int64))
        in_list = is_matrix and d > FEW_COLUMNS
        held = TILE_ROWS if in_list else 1
        listed, root = np.empty((k, held), np.int64), workspace(k, held)
        counts, scaled = np.zeros(k, np.int64), workspace(LIST_ROWS + 1, sum_x.shape[1])
        log_likelihood, n_far = float(sources) * 0.0, 0
        for start in range(0, n, TILE_ROWS):
            m, is_sorted = arrange_tile(
                X, means, factors, log_weights, is_matrix, start, order, work
            )
            tile_sum = rows(0.0)
            for t in range(0, m, ROWS):
                transpose(X, order, t, d, x)
                load_weights(weights, order, t, m, weight)
                first = int(guess[order[t] - start]) if is_sorted else 0
                largest = log_joints(x, means, factors, log_weights, first, is_matrix, joint)
                near = bits_greater(largest, rows(far_limit))
                if near != ALL_ROWS:
                    n_far = note_far(near, x, order, t, m, far, n_far)
                w = load_rows(weight, 0)
                w = where_greater(largest, far_limit, w, rows(0.0))
                summed = shares(joint, largest, k)
                log_density = where_greater(w, 0.0, add(largest, log(summed)), rows(0.0))
                tile_sum = multiply_add(w, log_density, tile_sum)
                if density.shape[0]:
                    store(weight, 0, log_density)
                    for lane in range(min(ROWS, m - t)):
                        density[order[t + lane]] = weight[lane]
                unit = where_greater(w, 0.0, divide(w, summed), rows(0.0))
                for j in range(k):
                    share = load_rows(joint, (j, 0))
                    if not any_greater(share, rows(0.0)):
                        continue
                    r = multiply(share, unit)
                    sum_resp[j] += total(r)
                    if not is_matrix:
                        add_squares(x, means[j], r, part_x[j], part_xx[j, 0], d)
                    elif not in_list:
                        add_products(x, means[j], r, part_x[j], part_xx[j], d)
                    else:
                        store(joint, (j, 0), square_root(r))
                        counts[j] = collect(joint[j], order, t, listed[j], root[j], counts[j])
            log_likelihood += total(tile_sum)
            if in_list:
                for j in range(k):
                    n_listed = counts[j]
                    add_listed(
                        X, listed[j, :n_listed], root[j, :n_listed], means[j], scaled,
                        sum_x[j], sum_xx[j % sum_xx.shape[0]],
                    )  # fmt: skip
                    counts[j] = 0
        return log_likelihood, n_far

    def scores(
        X: Any,
        means: Any,
        factors: Any,
        log_weights: Any,
        is_matrix: bool,
        far_limit: float,
        result: Any,
        far: Any,
    ) -> int:
        """Write labels, log-densities and largest responsibilities; how many rows are far."""
        labels, density, largest_share, responsibilities = result
        n, d = X.shape
        k = means.shape[0]
        x, joint, lane_values = workspace(d, ROWS), workspace(k, ROWS), workspace(3, ROWS)
        order, guess = np.empty(TILE_ROWS, np.int64), workspace(1, TILE_ROWS)[0]
        work = (x, guess, np.empty(TILE_ROWS, np.int64), np.empty(k + 1, np.int64))
        n_far = sources * 0
        for start in range(0, n, TILE_ROWS):
            m, is_sorted = arrange_tile(
                X, means, factors, log_weights, is_matrix, start, order, work
            )
            for t in range(0, m, ROWS):
                transpose(X, order, t, d, x)
                first = int(guess[order[t] - start]) if is_sorted else 0
                largest = log_joints(x, means, factors, log_weights, first, is_matrix, joint)
                near = bits_greater(largest, rows(far_limit))
                if near != ALL_ROWS:
                    n_far = note_far(near, x, order, t, m, far, n_far)
                nearest, best = rows(0.0), rows(-math.inf)
                for j in range(k):  # again: the first of equals, and they came in another order
                    log_joint = load_rows(joint, (j, 0))
                    nearest = where_greater(log_joint, best, rows(float(j)), nearest)
                    best = larger(log_joint, best)
                summed = shares(joint, largest, k)
                store(lane_values, (0, 0), nearest)
                store(lane_values, (1, 0), add(largest, log(summed)))
                store(lane_values, (2, 0), divide(rows(1.0), summed))
                for lane in range(min(ROWS, m - t)):
                    row = order[t + lane]
                    labels[row] = int(lane_values[0, lane])
                    density[row] = lane_values[1, lane]
                    largest_share[row] = lane_values[2, lane]
                    if responsibilities.shape[0]:
                        for j in range(k):
                            responsibilities[row, j] = joint[j, lane] * lane_values[2, lane]
        return n_far

    return compiled(expectation), compiled(scores)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, and cached on disk where there is a place for that."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # nowhere to write: it is compiled in every process
        return numba.njit(**options)(function)  # type: ignore[no-any-return]


ALL_ROWS = np.uint64(2**ROWS - 1)
add_expectation, write_scores = _made(_sources())
