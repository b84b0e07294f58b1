"""A tile of rows: what is read of it, in which order, and whether it is screened."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmm_dask.mixture.kernels.blocks import AT_ONCE, project, sort_by_guess, workspace
from gmm_dask.mixture.kernels.compiling import loop, makes_arrays
from gmm_dask.mixture.kernels.lanes import by_kind, n_lanes, n_rows, subtract
from gmm_dask.mixture.kernels.memory import load_columns, load_lanes, load_whole, store

TILE_ROWS = 2048
SHIFT_ROWS = 16  # rows that the shift is written down for, so that they fill whole vectors
AGAIN = 32  # tiles after which a screen that was not worth its time is tried once more


@loop
def as_they_are(tile: Any, X: Any, start: int, count: int, shift: Any) -> int:
    """The rows themselves: where the tile begins in X."""
    return start


@loop
def narrowed(tile: Any, X: Any, start: int, count: int, shift: Any) -> int:
    """The tile's rows less the shift, in float32, written to `tile`; where they begin in it.

    They are subtracted in their own precision: what all rows have in common costs no digits.
    """
    d = X.shape[1]
    flat, out = X[start : start + count].reshape(-1), tile.reshape(-1)
    n, period, step, at = count * d, SHIFT_ROWS * d, n_lanes(X), 0
    for i in range(0, n - step + 1, step):
        store(out, i, subtract(load_lanes(flat, i), load_whole(shift, at, X)))
        at = at + step if at + step < period else 0
    if n % step:
        i = n - n % step
        store(out, i, subtract(load_columns(flat, i, n % step, X), load_whole(shift, at, X)))
    return 0


@makes_arrays
def all_rows(tile: Any, X: Any) -> Any:
    """Where rows in float64 are read."""
    return X


@makes_arrays
def narrowed_rows(tile: Any, X: Any) -> Any:
    """Where rows in float32 are read, a tile at a time."""
    return tile


own_rows = by_kind(all_rows, narrowed_rows)  # an array that holds them in the kind of the tile
own_start = by_kind(as_they_are, narrowed)  # and where a tile of them begins


@loop
def arrange_tile(X: Any, screen: Any, is_screened: bool, order: Any, D: Any, work: Any) -> None:
    """Numbers of the tile's rows X, sorted where it is screened.

    Lanes beyond its end repeat the last row.
    """
    count = X.shape[0]
    for t in range(TILE_ROWS):
        order[t] = min(t, count - 1)
    if is_screened:
        centre, directions, means, biases, _, _, _ = screen
        project(X, centre, directions, D, work[1])
        sort_by_guess(means, biases, order, count, work)


@loop
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


@loop
def probable(order: Any, guess: Any, t: int, count: int, x: Any) -> tuple[int, int]:
    """The components that the block's rows of a sorted tile probably are of: begin, end."""
    last = min(t + n_rows(x), count) - 1
    return int(guess[order[t]]), int(guess[order[last]]) + 1


@loop
def padded(n_columns: int, like: Any) -> int:
    """Columns filled up to whole vectors."""
    return -(-n_columns // n_lanes(like)) * n_lanes(like)


@makes_arrays
def workspaces(n_columns: int, k: int, screen: Any, like: Any) -> Any:
    """For a tile: y, projected rows, guesses, sorted rows, ends; and for rows less the centre."""
    n = screen[5].shape[1]
    screened_rows = TILE_ROWS if n else 0
    work = (
        workspace(padded(n, like), n_rows(like), like),
        workspace(screened_rows, screen[1].shape[1], like),
        workspace(1, TILE_ROWS, like)[0],
        np.empty(TILE_ROWS, np.int64),
        np.empty(k + 1, np.int64),
    )
    return work, workspace(AT_ONCE, padded(n_columns, like) if n else 0, like)


@makes_arrays
def own_workspace(n_columns: int, shift: Any) -> Any:
    """For the rows of a tile, where these are not read from where they are."""
    return workspace(TILE_ROWS + SHIFT_ROWS if shift.shape[0] else 0, n_columns, shift)
