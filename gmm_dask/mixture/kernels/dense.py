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

import numpy as np

from gmm_dask.mixture.kernels.blocks import (
    collect,
    load_weights,
    transpose,
    workspace,
)
from gmm_dask.mixture.kernels.compiling import cached, inlined, loop, makes_arrays
from gmm_dask.mixture.kernels.distances import bound_of, of_matrix, of_variances
from gmm_dask.mixture.kernels.elementary import exp, log
from gmm_dask.mixture.kernels.lanes import (
    Vector,
    add,
    any_greater,
    any_within,
    bits_greater,
    by_kind,
    divide,
    doubled,
    folded,
    larger,
    multiply,
    multiply_add,
    n_rows,
    rows,
    square_root,
    subtract,
    total,
    where_greater,
)
from gmm_dask.mixture.kernels.memory import accumulate, load_rows, store
from gmm_dask.mixture.kernels.sums import LIST_ROWS, add_listed, add_products, add_squares
from gmm_dask.mixture.kernels.tiles import (
    TILE_ROWS,
    arrange_tile,
    is_worth,
    own_rows,
    own_start,
    own_workspace,
    padded,
    probable,
    workspaces,
)

FEW_COLUMNS = 8  # up to which sums are taken over rows in lanes; beyond, over rows in a list
ROUNDED = 1.01  # a bound is taken to be above a limit from here on
OUT_OF_REACH = -42.0  # log of a responsibility that is nothing in float64
FAR, FAR_OUT_OF_REACH = -1000.0, -150.0  # of a row with squared distances that may outweigh that


@loop
def reach_double(largest: Vector, least: float) -> Vector:
    """Log responsibility down to which a component counts, for rows of this log-density."""
    return where_greater(largest, FAR, OUT_OF_REACH, FAR_OUT_OF_REACH)


@loop
def reach_single(largest: Vector, least: float) -> Vector:
    """The same where no row is far: one number, of the mixture."""
    return where_greater(largest, least, least, least)


reach = by_kind(reach_double, reach_single)


@inlined
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
    means, factors, log_weights, is_matrix, least, _ = mixture
    _, _, _, _, screen_factors, offsets, _ = screen
    largest = rows(out, -math.inf)
    k, d = means.shape
    own_factor, own_screen = factors.shape[0] > 1, screen_factors.shape[0] > 1
    begin, n_likely = likely[0], likely[1] - likely[0]
    for place in range(n_likely + k):
        j = begin + place if place < n_likely else place - n_likely
        if place >= n_likely and begin <= j < begin + n_likely:
            continue
        log_weight = log_weights[j]
        lead = subtract(rows(out, log_weight), largest)
        limit = multiply(subtract(lead, reach(largest, least)), 2.0)
        if n_likely and place >= n_likely:
            at_most = multiply(limit, ROUNDED)
            screen_factor = screen_factors[j if own_screen else 0]
            bound = bound_of(y, offsets[j], screen_factor, at_most)
            tally[0] += 1
            if not any_within(bound, at_most):
                tally[1] += 1
                store(out, (j, 0), multiply_add(bound, -0.5, log_weight))
                continue
        factor = factors[j if own_factor else 0]
        if is_matrix:
            squares = of_matrix(x, means[j], factor, d, limit)
        else:
            squares = of_variances(x, means[j], factor[0], d)
        log_joint = multiply_add(squares, -0.5, log_weight)
        store(out, (j, 0), log_joint)
        largest = larger(log_joint, largest)
    return largest


@loop
def shares(out: Any, largest: Vector, out_of_reach: float, k: int) -> Vector:
    """Turn log joints (k, ROWS) into densities in units of the largest; their sum."""
    least, summed = reach(largest, out_of_reach), rows(out, 0.0)
    for j in range(k):
        difference = subtract(load_rows(out, (j, 0)), largest)
        if any_greater(difference, least):
            share = where_greater(difference, least, exp(difference), 0.0)
            summed = add(summed, share)
            store(out, (j, 0), share)
        else:
            store(out, (j, 0), rows(out, 0.0))
    return summed


@loop
def note_far(
    near: Any, x: Any, order: Any, start: int, t: int, count: int, far: Any, n_far: int
) -> int:
    """Add the block's rows whose densities say nothing to the list; how many it has then.

    Their lanes of x become 0: nothing of them is added, and 0 times infinity would be.
    """
    for lane in range(n_rows(x)):
        if not (near >> np.uint64(lane)) & np.uint64(1):
            x[:, lane] = 0.0
            if t + lane < count:
                if n_far < far.shape[0]:
                    far[n_far] = start + order[t + lane]
                n_far += 1
    return n_far


@makes_arrays
def block_of(d: int, k: int, like: Any) -> Any:
    """Room for a block: rows and log joints transposed, rows less a mean, weights."""
    width = n_rows(like)
    return (
        workspace(padded(d, like), width, like),
        workspace(k, width, like),
        workspace(d, width, like),
        workspace(1, width, like)[0],
    )


@makes_arrays
def lists_of(d: int, k: int, held: int, like: Any) -> Any:
    """Room for the rows of a tile by component: their numbers, roots of shares, how many."""
    return (
        np.empty((k, held), np.int64),
        workspace(k, held, like),
        np.zeros(k, np.int64),
        workspace(LIST_ROWS + 1, padded(d, like), like),
    )


@loop
def expect(
    X: Any,
    weights: Any,
    mixture: Any,
    screen: Any,
    frame: Any,
    sums: Any,
    far: Any,
    density: Any,
    room: Any,
) -> Any:
    """Add the rows' statistics to sums; log-likelihood, and how many rows are far.

    Everything is computed in the kind of float that the mixture is in; sums are float64.

    Parameters
    ----------
    frame : far limit, top, shift
        What rows are far from (note_far); what all log weights were lessened by, and (d,) the
        means: rows are read as they are where it is empty.
    room : a tile, where its rows are read, order, tally, workspaces of the screen, a block, lists
    """
    n, d = X.shape
    means, _, _, is_matrix, least, rests = mixture
    k = means.shape[0]
    sum_resp, sum_x, sum_xx, part_x, part_xx = sums
    far_limit, top, shift = frame
    tile, source, order, tally, work, shifted, (x, joint, centred, weight), lists = room
    listed, root, counts, scaled = lists
    y, projected, guess, _, _ = work
    width = n_rows(means)
    all_near = ~np.uint64(0) >> np.uint64(64 - width)
    in_list = is_matrix and d > FEW_COLUMNS
    log_likelihood, n_far = 0.0, 0
    for start in range(0, n, TILE_ROWS):
        is_screened = is_worth(screen, tally, start // TILE_ROWS)
        m = min(TILE_ROWS, n - start)
        first = own_start(tile, X, start, m, shift)
        Z, part = source[first : first + m], weights[start:]
        arrange_tile(Z, screen, is_screened, order, shifted, work)
        tile_sum = doubled(rows(means, 0.0))
        for t in range(0, m, width):
            transpose(Z, order, t, d, x)
            load_weights(part, order, t, m, weight)
            likely = (0, 0)
            if is_screened:
                transpose(projected, order, t, screen[5].shape[1], y)
                likely = probable(order, guess, t, m, x)
            largest = log_joints(x, y, mixture, screen, likely, tally, joint)
            near = bits_greater(largest, rows(means, far_limit))
            if near != all_near:
                n_far = note_far(near, x, order, start, t, m, far, n_far)
            w = load_rows(weight, 0)
            w = where_greater(largest, far_limit, w, 0.0)
            summed = shares(joint, largest, least, k)
            log_density = where_greater(w, 0.0, add(largest, log(summed)), 0.0)
            tile_sum = multiply_add(doubled(w), add(doubled(log_density), top), tile_sum)
            if density.shape[0]:
                store(weight, 0, log_density)
                for lane in range(min(width, m - t)):
                    density[start + order[t + lane]] = weight[lane] + top
            unit = where_greater(w, 0.0, divide(w, summed), 0.0)
            for j in range(k):
                share = load_rows(joint, (j, 0))
                if not any_greater(share, rows(means, 0.0)):
                    continue
                r = multiply(share, unit)
                accumulate(sum_resp[j], 0, folded(r))
                if not is_matrix:
                    add_squares(x, means[j], rests[j], r, part_x[j], part_xx[j, 0], d)
                elif not in_list:
                    add_products(x, means[j], rests[j], r, centred, part_x[j], part_xx[j])
                else:
                    store(joint, (j, 0), square_root(r))
                    counts[j] = collect(joint[j], order, t, listed[j], root[j], counts[j])
        log_likelihood += total(tile_sum)
        if in_list:
            for j in range(k):
                n_listed = counts[j]
                add_listed(
                    Z, listed[j, :n_listed], root[j, :n_listed], means[j], rests[j],
                    scaled, sum_x[j], sum_xx[j % sum_xx.shape[0]],
                )  # fmt: skip
                counts[j] = 0
    return log_likelihood, n_far


@loop
def score(
    X: Any, mixture: Any, screen: Any, far_limit: float, result: Any, far: Any, room: Any
) -> int:
    """Write labels, log-densities and largest responsibilities; how many rows are far.

    Parameters
    ----------
    room : order of a tile, tally, workspaces of the screen, a block, values of the lanes
    """
    labels, density, largest_share, responsibilities = result
    n, d = X.shape
    means, least = mixture[0], mixture[4]
    k, width = means.shape[0], n_rows(means)
    order, tally, work, shifted, (x, joint, _, _), lane_values = room
    all_near = ~np.uint64(0) >> np.uint64(64 - width)
    y, projected, guess, _, _ = work
    n_far = 0
    for start in range(0, n, TILE_ROWS):
        is_screened = is_worth(screen, tally, start // TILE_ROWS)
        m = min(TILE_ROWS, n - start)
        Z = X[start : start + m]
        arrange_tile(Z, screen, is_screened, order, shifted, work)
        for t in range(0, m, width):
            transpose(Z, order, t, d, x)
            likely = (0, 0)
            if is_screened:
                transpose(projected, order, t, screen[5].shape[1], y)
                likely = probable(order, guess, t, m, x)
            largest = log_joints(x, y, mixture, screen, likely, tally, joint)
            near = bits_greater(largest, rows(means, far_limit))
            if near != all_near:
                n_far = note_far(near, x, order, start, t, m, far, n_far)
            nearest, best = rows(means, 0.0), rows(means, -math.inf)
            for j in range(k):  # again: the first of equals, and they came in another order
                log_joint = load_rows(joint, (j, 0))
                nearest = where_greater(log_joint, best, rows(means, float(j)), nearest)
                best = larger(log_joint, best)
            summed = shares(joint, largest, least, k)
            store(lane_values, (0, 0), nearest)
            store(lane_values, (1, 0), add(largest, log(summed)))
            store(lane_values, (2, 0), divide(rows(means, 1.0), summed))
            for lane in range(min(width, m - t)):
                row = start + order[t + lane]
                labels[row] = int(lane_values[0, lane])
                density[row] = lane_values[1, lane]
                largest_share[row] = lane_values[2, lane]
                if responsibilities.shape[0]:
                    for j in range(k):
                        responsibilities[row, j] = joint[j, lane] * lane_values[2, lane]
    return n_far


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
        frame: Any,
        sums: Any,
        far: Any,
        density: Any,
    ) -> Any:
        """As `expect`, with room for it."""
        means, d, shift = mixture[0], X.shape[1], frame[2]
        k, held = means.shape[0], TILE_ROWS if mixture[3] and d > FEW_COLUMNS else 1
        work, shifted = workspaces(d, k, screen, means)
        tile, order = own_workspace(d, shift), np.empty(TILE_ROWS, np.int64)
        tally = np.zeros(2 + sources * 0, np.int64)
        block, lists = block_of(d, k, means), lists_of(d, k, held, means)
        room = (tile, own_rows(tile, X), order, tally, work, shifted, block, lists)
        return expect(X, weights, mixture, screen, frame, sums, far, density, room)

    def scores(X: Any, mixture: Any, screen: Any, far_limit: float, result: Any, far: Any) -> Any:
        """As `score`, with room for it."""
        means, d = mixture[0], X.shape[1]
        k = means.shape[0]
        work, shifted = workspaces(d, k, screen, means)
        room = (
            np.empty(TILE_ROWS, np.int64), np.zeros(2 + sources * 0, np.int64),
            work, shifted, block_of(d, k, means), workspace(3, n_rows(means), means),
        )  # fmt: skip
        return score(X, mixture, screen, far_limit, result, far, room)

    return cached(expectation), cached(scores)


add_expectation, write_scores = _made(_sources())
