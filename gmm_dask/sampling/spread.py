"""Moments of every column: the units of priors and floors, and what the rows' weights are in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BLOCK_VALUES = 1 << 17  # values of a block, which so stays in the cache
LEAST_ROWS = 1 << 12  # rows of a block: threads that ask for Python's lock too often wait for it
TILE_ROWS = 512  # rows transposed at once
LEAST_UNIT = 2.0**-1074  # the smallest power of two there is


def weight_unit(largest: float) -> float:
    """The power of two at or just below the largest weight; in it all weights are less than 2.

    Dividing by it is exact: only a weight 2^1022 times below the largest may vanish.
    """
    return float(math.ldexp(1.0, math.frexp(largest)[1] - 1)) if largest > 0 else LEAST_UNIT


def column_blocks(X: npt.NDArray[np.floating]) -> Iterator[tuple[slice, Array]]:
    """Rows X (n, d) block by block as columns (d, m), each with its place; at least one block.

    What reduces over rows, and what does the same to every value of a column, is several times as
    fast on columns that lie side by side.
    """
    size = max(LEAST_ROWS, BLOCK_VALUES // max(1, X.shape[1]))
    for start in range(0, max(1, len(X)), size):
        block = X[start : start + size]
        columns = np.empty(block.shape[::-1])
        for i in range(0, len(block), TILE_ROWS):
            columns[:, i : i + TILE_ROWS] = block[i : i + TILE_ROWS].T
        yield slice(start, start + len(block)), columns


@dataclass(frozen=True, eq=False)
class ColumnSpread:
    """Weighted moments of the columns over the values that are there; they add up.

    Merging follows Chan, Golub, LeVeque 1983: no digits are lost to an offset.

    Parameters
    ----------
    weight : (d,)
        Sum of the weights of the rows where the column has a value, in `unit`.
    mean : (d,)
    scatter : (d,)
        Weighted sum of squares about the mean, in `unit`.
    least, greatest : (d,)
        Values; infinity and minus infinity where there is none.
    unit : float
        The power of two that is the `weight_unit` of all rows; 1 where they have no weights.
    """

    weight: Array
    mean: Array
    scatter: Array
    least: Array
    greatest: Array
    unit: float = 1.0

    @classmethod
    def of(cls, X: npt.NDArray[np.floating], sample_weight: Array | None = None) -> ColumnSpread:
        """The moments of rows X (n, d); NaN counts as absent, other rows must be finite."""
        blocks = (
            cls.of_columns(columns, None if sample_weight is None else sample_weight[rows])
            for rows, columns in column_blocks(X)
        )
        return reduce(add, blocks)

    @classmethod
    def of_columns(cls, columns: Array, sample_weight: Array | None = None) -> ColumnSpread:
        """The moments of rows that are given by their columns (d, n)."""
        unit = 1.0
        if sample_weight is not None:
            counted = sample_weight > 0
            if not counted.all():
                columns = np.compress(counted, columns, axis=1)
                sample_weight = sample_weight[counted]
            unit = weight_unit(sample_weight.max(initial=0.0))
            sample_weight = sample_weight / unit
        least = columns.min(axis=1, initial=np.inf)
        if columns.shape[1] and not np.isnan(least).any():
            return cls._of_complete(columns, sample_weight, unit, least)
        there = ~np.isnan(columns)
        weight = there * (1.0 if sample_weight is None else sample_weight)
        total = weight.sum(axis=1)
        divisor = np.where(total > 0, total, 1.0)
        # Measured from the value of largest weight: the mean of equal values is exactly that value.
        origin = np.zeros(len(columns))
        if columns.shape[1]:
            heaviest = columns[np.arange(len(columns)), weight.argmax(axis=1)]
            origin = np.where(total > 0, heaviest, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            D = np.where(there, columns - origin[:, None], 0.0)
            mean = origin + (weight * D).sum(axis=1) / divisor
            D = np.where(there, columns - mean[:, None], 0.0)
            left = (weight * D).sum(axis=1) / divisor  # what rounding left of the mean
            scatter = (weight * (D - left[:, None]) ** 2 * there).sum(axis=1)
            mean = mean + left
        least = np.min(columns, axis=1, where=there, initial=np.inf)
        greatest = np.max(columns, axis=1, where=there, initial=-np.inf)
        return cls(total, mean, scatter, least, greatest, unit)

    @classmethod
    def _of_complete(
        cls, columns: Array, sample_weight: Array | None, unit: float, least: Array
    ) -> ColumnSpread:
        """The moments of columns (d, n) without a missing value, in less memory."""
        weight = np.ones(columns.shape[1]) if sample_weight is None else sample_weight
        total = float(weight.sum())
        origin = columns[:, int(weight.argmax())]
        with np.errstate(over="ignore", invalid="ignore"):
            D = columns - origin[:, None]
            mean = origin + np.vecdot(D, weight) / total
            np.subtract(columns, mean[:, None], out=D)
            left = np.vecdot(D, weight) / total
            D -= left[:, None]
            scatter = np.vecdot(D if sample_weight is None else weight * D, D)
            mean = mean + left
        return cls(np.full(len(columns), total), mean, scatter, least, columns.max(axis=1), unit)

    def __add__(self, other: ColumnSpread) -> ColumnSpread:
        unit = max(self.unit, other.unit)
        mine, theirs = self.in_unit(unit), other.in_unit(unit)
        weight = mine.weight + theirs.weight
        share = theirs.weight / np.where(weight > 0, weight, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            delta = other.mean - self.mean
            mean = np.where(mine.weight > 0, self.mean + delta * share, other.mean)
            both = (share > 0) & (share < 1)
            between = np.where(both, mine.weight * share * delta**2, 0.0)
            scatter = mine.scatter + theirs.scatter + between
        least = np.minimum(self.least, other.least)
        greatest = np.maximum(self.greatest, other.greatest)
        return ColumnSpread(weight, mean, scatter, least, greatest, unit)

    def in_unit(self, unit: float) -> ColumnSpread:
        """The moments with their weights in another unit, a power of two."""
        ratio = self.unit / unit
        if ratio == 1:
            return self
        return replace(self, weight=self.weight * ratio, scatter=self.scatter * ratio, unit=unit)

    @property
    def variances(self) -> Array:
        """Variance of each column, (d,); 0 where its values are equal, or too close to square."""
        return np.asarray(self.scatter / np.where(self.weight > 0, self.weight, 1.0))

    @property
    def constant(self) -> npt.NDArray[np.bool_]:
        """Columns without two different values, (d,)."""
        return np.asarray(self.least >= self.greatest)
