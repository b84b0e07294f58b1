"""The first look at rows, compiled: moments of the columns and keys of the rows.

Values of a tile are taken as they lie, row after row, in groups of rows: what belongs to a column
stands in every group at the same places, so that whole vectors are added whatever the columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gmm_dask.mixture.kernels.compiling import cached, loop
from gmm_dask.mixture.look import FIRST, GOLDEN, SECOND

TILE_VALUES, TILE_ROWS = 1 << 13, 16  # a tile stays in the cache; of wide rows it has so many
GROUP_VALUES = 128  # of a group at least, so that its vectors are many
EARLY, MIDDLE, LATE, HALF = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@cached
def write_look(X: Any, salt: Any, moments: Any, keys: Any) -> None:
    """Moments (4, d) of rows X (n, d): mean, scatter, least, greatest; and their keys (n,) or (0,).

    A value that is not finite leaves a mean that is not.
    """
    n, d = X.shape
    flat = X.reshape(-1)
    n_rows = max(TILE_ROWS, TILE_VALUES // d)
    group = -(-GROUP_VALUES // d) * d
    tile = np.empty(n_rows * d)
    bits = tile.view(np.uint64)
    work = np.empty((5, group))
    work[3], work[4] = np.inf, -np.inf
    moments[:2] = 0.0
    for start in range(0, n, n_rows):
        end = min(start + n_rows, n)
        values = tile[: (end - start) * d]
        _take(flat[start * d : end * d], values)
        _add_moments(values, start, work, moments)
        if keys.size:
            _hash(bits[: values.size], salt, keys[start:end], d)
    for j in range(d):
        moments[2, j], moments[3, j] = np.inf, -np.inf
    for m in range(group):
        j = m % d
        moments[2, j] = min(moments[2, j], work[3, m])
        moments[3, j] = max(moments[3, j], work[4, m])


@loop
def _take(rows: Any, values: Any) -> None:
    """Values in float64; -0 becomes 0, which has the same key then."""
    for m in range(rows.size):
        values[m] = rows[m] + 0.0


@loop
def _add_moments(values: Any, seen: int, work: Any, moments: Any) -> None:
    """Of a tile of rows that stands after so many; two looks at it, and a merger (see `spread`)."""
    group, d = work.shape[1], moments.shape[1]
    about, sums, squares, low, high = work[0], work[1], work[2], work[3], work[4]
    # About the first row: the mean of equal values is then exactly that value.
    for m in range(group):
        about[m], sums[m], squares[m] = values[m % d], 0.0, 0.0
    for start in range(0, values.size, group):
        rows = values[start : min(start + group, values.size)]
        for m in range(rows.size):
            x = rows[m]
            sums[m] += x - about[m]
            low[m] = x if x < low[m] else low[m]
            high[m] = x if x > high[m] else high[m]
    n = values.size // d
    for j in range(d):
        offset = 0.0
        for m in range(j, group, d):
            offset += sums[m]
        for m in range(j, group, d):
            about[m] += offset / n
            sums[m] = 0.0
    for start in range(0, values.size, group):
        rows = values[start : min(start + group, values.size)]
        for m in range(rows.size):
            D = rows[m] - about[m]
            sums[m] += D
            squares[m] += D * D
    share = n / (seen + n)
    for j in range(d):
        left, scatter = 0.0, 0.0
        for m in range(j, group, d):
            left += sums[m]
            scatter += squares[m]
        left /= n  # what rounding left of the mean
        mean = about[j] + left
        delta = mean - moments[0, j] if seen else 0.0
        moments[0, j] = moments[0, j] + delta * share if seen else mean
        moments[1, j] += max(scatter - n * left * left, 0.0) + seen * share * delta * delta


@loop
def _hash(bits: Any, salt: Any, keys: Any, d: int) -> None:
    """The keys of rows of so many values, as `look.row_keys` has them."""
    for i in range(keys.size):
        row = bits[i * d : i * d + d]
        key = salt
        for j in range(row.size):
            key = (key ^ row[j]) * GOLDEN
            key ^= key >> HALF
        key += GOLDEN
        key = (key ^ (key >> EARLY)) * FIRST
        key = (key ^ (key >> MIDDLE)) * SECOND
        keys[i] = key ^ (key >> LATE)
