"""One fused pass over a tile of rows: densities, log-sum-exp, responsibilities, sums.

Components that are out of reach are left alone: the distance in a few directions (`screen`) is a
lower bound of the whole, and a responsibility under e^-42 adds nothing to a sum. Rows that are
probably of one component stand side by side, so that whole blocks skip the others.
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
    AT_ONCE,
    collect,
    load_projected,
    load_weights,
    project,
    sort_by_guess,
    transpose,
    workspace,
)
from gmm_dask.mixture.kernels.distances import bound_of, of_matrix, of_variances
from gmm_dask.mixture.kernels.elementary import exp, log
from gmm_dask.mixture.kernels.lanes import (
    LANES,
    ROWS,
    Vector,
    add,
    any_greater,
    any_within,
    bits_greater,
    divide,
    folded,
    larger,
    load_lanes,
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

TILE_ROWS = 2048
FEW_COLUMNS = 8  # up to which sums are taken over rows in lanes; beyond, over rows in a list
AGAIN = 32  # tiles after which a screen that was not worth its time is tried once more
ROUNDED = 1.01  # a bound is taken to be above a limit from here on
OUT_OF_REACH = -42.0  # log of a responsibility that is nothing in float64
FAR, FAR_OUT_OF_REACH = -1000.0, -150.0  # of a row with squared distances that may outweigh that


@numba.njit(nogil=True, error_model="numpy")
def reach(largest: Vector) -> Vector:
    """Log responsibility down to which a component counts, for rows of this log-density."""
    return where_greater(largest, FAR, rows(OUT_OF_REACH), rows(FAR_OUT_OF_REACH))


@numba.njit(nogil=True, error_model="numpy")
def log_joints(
    x: Any, y: Any, mixture: Any, screen: Any, likely: tuple[int, int], tally: Any, out: Any
) -> Vector:
    """Write log weight times density of a block's rows to out (k, ROWS); the largest of each row.

    Where a component is out of reach of all rows of the block, an upper bound is written.

    Parameters
    ----------
    x, y : (d, ROWS), (n, ROWS)
        The rows, and what the screen sees of them.
    likely : (int, int)
        The first of the components that the rows probably are of, and the one after the last;
        they come first, for they bound what the others can be. Without any there is no screen.
    tally : (2,)
        Of the other components, how many were looked at and how many were out of reach.
    """
    means, factors, log_weights, is_matrix = mixture
    _, _, _, _, screen_factors, offsets, _ = screen
    largest = rows(-math.inf)
    k, d = means.shape
    begin, n_likely = likely[0], likely[1] - likely[0]
    for place in range(n_likely + k):
        j = begin + place if place < n_likely else place - n_likely
        if place >= n_likely and begin <= j < begin + n_likely:
            continue
        log_weight = log_weights[j]
        limit = multiply(subtract(subtract(rows(log_weight), largest), reach(largest)), 2.0)
        if n_likely and place >= n_likely:
            at_most = multiply(limit, ROUNDED)
            screen_factor = screen_factors[j % screen_factors.shape[0]]
            bound = bound_of(y, offsets[j], screen_factor, at_most)
            tally[0] += 1
            if not any_within(bound, at_most):
                tally[1] += 1
                store(out, (j, 0), multiply_add(bound, -0.5, rows(log_weight)))
                continue
        factor = factors[j % factors.shape[0]]
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
    X: Any, start: int, screen: Any, is_screened: bool, order: Any, D: Any, work: Any
) -> int:
    """Row numbers of the tile that begins at start, sorted where it is screened: how many.

    Lanes beyond its end repeat the last row.
    """
    n_rows = int(min(TILE_ROWS, X.shape[0] - start))
    for t in range(TILE_ROWS):
        order[t] = start + min(t, n_rows - 1)
    if is_screened:
        centre, directions, means, biases, _, _, _ = screen
        project(X, start, n_rows, centre, directions, D, work[1])
        sort_by_guess(means, biases, order, start, n_rows, work)
    return n_rows


@numba.njit(nogil=True, error_model="numpy")
def is_worth(screen: Any, tally: Any, tile: int) -> bool:
    """Whether to screen the next tile: the last one screened gained by it, or it is time to look.

    Where none or few components are out of reach, tiles are left as they are.
    """
    if not screen[1].shape[1]:
        return False
    gained = tally[1] >= screen[6] * tally[0]
    if gained or tile % AGAIN == 0:
        tally[:] = 0
        return True
    return False


@numba.njit(nogil=True, error_model="numpy")
def probable(order: Any, guess: Any, start: int, t: int, n_rows: int) -> tuple[int, int]:
    """The components that the block's rows of a sorted tile probably are of: begin, end."""
    last = min(t + ROWS, n_rows) - 1
    return int(guess[order[t] - start]), int(guess[order[last] - start]) + 1


@numba.njit(nogil=True, error_model="numpy")
def padded(n_columns: int) -> int:
    """Columns filled up to whole vectors."""
    return -(-n_columns // LANES) * LANES


@numba.njit(nogil=True, error_model="numpy")
def workspaces(n_columns: int, k: int, screen: Any) -> Any:
    """For a tile: y, projected rows, guesses, sorted rows, ends; and for rows less the centre."""
    n = screen[5].shape[1]
    screened_rows = TILE_ROWS if n else 0
    work = (
        workspace(n, ROWS),
        workspace(screened_rows, screen[1].shape[1]),
        workspace(1, TILE_ROWS)[0],
        np.empty(TILE_ROWS, np.int64),
        np.empty(k + 1, np.int64),
    )
    return work, workspace(AT_ONCE, padded(n_columns) if n else 0)


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
        mixture: Any,
        screen: Any,
        far_limit: float,
        sums: Any,
        far: Any,
        density: Any,
    ) -> Any:
        """Add the rows' statistics to sums; log-likelihood, and how many rows are far."""
        n, d = X.shape
        means, _, _, is_matrix = mixture
        k = means.shape[0]
        sum_resp, sum_x, sum_xx, part_x, part_xx = sums
        x, joint, weight = workspace(padded(d), ROWS), workspace(k, ROWS), workspace(1, ROWS)[0]
        order, tally = np.empty(TILE_ROWS, np.int64), np.zeros(2, np.int64)
        work, shifted = workspaces(d, k, screen)
        y, projected, guess, _, _ = work
        in_list = is_matrix and d > FEW_COLUMNS
        held = TILE_ROWS if in_list else 1
        listed, root = np.empty((k, held), np.int64), workspace(k, held)
        counts, scaled = np.zeros(k, np.int64), workspace(LIST_ROWS + 1, sum_x.shape[1])
        log_likelihood, n_far = float(sources) * 0.0, 0
        for start in range(0, n, TILE_ROWS):
            is_screened = is_worth(screen, tally, start // TILE_ROWS)
            m = arrange_tile(X, start, screen, is_screened, order, shifted, work)
            tile_sum = rows(0.0)
            for t in range(0, m, ROWS):
                transpose(X, order, t, d, x)
                load_weights(weights, order, t, m, weight)
                likely = (0, 0)
                if is_screened:
                    load_projected(projected, order, t, start, y)
                    likely = probable(order, guess, start, t, m)
                largest = log_joints(x, y, mixture, screen, likely, tally, joint)
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
                    store(sum_resp[j], 0, add(load_lanes(sum_resp[j], 0), folded(r)))
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
        mixture: Any,
        screen: Any,
        far_limit: float,
        result: Any,
        far: Any,
    ) -> int:
        """Write labels, log-densities and largest responsibilities; how many rows are far."""
        labels, density, largest_share, responsibilities = result
        n, d = X.shape
        k = mixture[0].shape[0]
        x, joint, lane_values = workspace(padded(d), ROWS), workspace(k, ROWS), workspace(3, ROWS)
        order, tally = np.empty(TILE_ROWS, np.int64), np.zeros(2, np.int64)
        work, shifted = workspaces(d, k, screen)
        y, projected, guess, _, _ = work
        n_far = sources * 0
        for start in range(0, n, TILE_ROWS):
            is_screened = is_worth(screen, tally, start // TILE_ROWS)
            m = arrange_tile(X, start, screen, is_screened, order, shifted, work)
            for t in range(0, m, ROWS):
                transpose(X, order, t, d, x)
                likely = (0, 0)
                if is_screened:
                    load_projected(projected, order, t, start, y)
                    likely = probable(order, guess, start, t, m)
                largest = log_joints(x, y, mixture, screen, likely, tally, joint)
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
