"""Keys of rows, hashes of their values, by which rows are drawn and equal rows stay together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.sampling.spread import ColumnSpread, column_blocks

Array = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[Any]

# Odd multipliers whose bits have no pattern (Steele, Lea, Flood 2014: SplitMix).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def spread_and_keys(
    X: Rows, sample_weight: Array | None = None, salt: int | None = None
) -> tuple[ColumnSpread, Keys]:
    """Moments of the columns of rows X (n, d) and the rows' keys (n,); without a salt, no keys."""
    keys = np.empty(0 if salt is None else len(X), np.uint64)
    parts = []
    for rows, columns in column_blocks(X):
        weight = None if sample_weight is None else sample_weight[rows]
        parts.append(ColumnSpread.of_columns(columns, weight))
        if salt is not None:
            keys[rows] = _column_keys(columns, salt)
    return reduce(add, parts), keys


def row_keys(X: Rows, salt: int) -> Keys:
    """A hash of each row's values, (n,); equal values of any float type have equal keys."""
    keys = np.empty(len(X), np.uint64)
    for rows, columns in column_blocks(X):
        keys[rows] = _column_keys(columns, salt)
    return keys


def _column_keys(columns: Array, salt: int) -> Keys:
    """The keys of `row_keys` for rows that are given by their columns (d, n)."""
    values = columns + 0.0  # -0 becomes 0
    values[np.isnan(values)] = np.nan  # and every NaN the same
    keys = np.full(columns.shape[1], salt, np.uint64)
    for bits in values.view(np.uint64):
        _take_in(keys, bits)
    return _mixed(keys)


def _take_in(key: Keys, bits: Keys) -> None:
    """Mix one more value into each key, in place; keys that differ stay different."""
    key ^= bits
    key *= GOLDEN
    key ^= key >> np.uint64(32)


def _mixed(z: Keys) -> Keys:
    """Every bit of the result depends on every bit (Steele, Lea, Flood 2014: SplitMix)."""
    z = z + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return np.asarray(z ^ (z >> np.uint64(31)))


_ALL = 2**64  # hashes there are


@dataclass(frozen=True)
class Fold:
    """The rows whose hash is in a part of all hashes.

    Parameters
    ----------
    salt : int
        Salt of the hash of the rows.
    start, stop : float
        Shares of all hashes, from 0 to 1: the part begins at the one and ends before the other.
    """

    salt: int
    start: float
    stop: float

    def of(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether rows of these hashes are in it, (n,)."""
        first, last = int(self.start * _ALL), int(self.stop * _ALL) - 1
        return np.asarray((keys >= np.uint64(first)) & (keys <= np.uint64(last)))


def folded(
    X: Rows, weight: Rows | None, folds: Iterable[Fold]
) -> dict[Fold, tuple[Rows, Rows | None]]:
    """The rows X (n, d) of each fold, (m, d), with their weights, (m,); a hash is taken once."""
    keys: dict[int, Keys] = {}
    found = {}
    for fold in dict.fromkeys(folds):
        if fold.salt not in keys:
            keys[fold.salt] = row_keys(X, fold.salt)
        there = fold.of(keys[fold.salt])
        found[fold] = X[there], None if weight is None else weight[there]
    return found
