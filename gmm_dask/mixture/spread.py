"""Mean and variance of every column: the units in which priors and floors are given."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BLOCK_VALUES, LEAST_ROWS = 1 << 17, 256  # of a block, which so stays in the cache
LEAST_UNIT = 2.0**-1074  # the smallest power of two there is


def weight_unit(largest: float) -> float:
    """The power of two at or just below the largest weight; in it all weights are less than 2.

    Dividing by it is exact: only a weight 2^1022 times below the largest may vanish.
    """
    return float(math.ldexp(1.0, math.frexp(largest)[1] - 1)) if largest > 0 else LEAST_UNIT


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
        size = max(LEAST_ROWS, BLOCK_VALUES // max(1, X.shape[1]))
        if len(X) > size:  # temporaries of a block, not of a chunk
            starts = range(0, len(X), size)
            blocks = (slice(start, start + size) for start in starts)
            return reduce(
                add,
                (
                    cls.of(X[rows], None if sample_weight is None else sample_weight[rows])
                    for rows in blocks
                ),
            )
        unit = 1.0
        if sample_weight is not None:
            counted = sample_weight > 0
            X, sample_weight = X[counted], sample_weight[counted]
            unit = weight_unit(sample_weight.max(initial=0.0))
            sample_weight = sample_weight / unit
        # Column by column: reductions over what lies side by side are several times as fast.
        values: Array = np.array(X.T, dtype=np.float64, order="C")
        if len(X) and not np.isnan(values.min(axis=1)).any():
            return cls._of_complete(values, sample_weight, unit)
        X = values.T
        there = ~np.isnan(X)
        weight = there * (1.0 if sample_weight is None else sample_weight[:, None])
        total = weight.sum(axis=0)
        divisor = np.where(total > 0, total, 1.0)
        # About a value of much weight: the mean of equal values is then exactly that value.
        some = X[weight.argmax(axis=0), np.arange(X.shape[1])] if len(X) else np.zeros(X.shape[1])
        origin = np.where(total > 0, some, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            D = np.where(there, X - origin, 0.0)
            mean = origin + (weight * D).sum(axis=0) / divisor
            D = np.where(there, X - mean, 0.0)
            left = (weight * D).sum(axis=0) / divisor  # what rounding left of the mean
            scatter = (weight * (D - left) ** 2 * there).sum(axis=0)
            mean = mean + left
        least = np.min(X, axis=0, where=there, initial=np.inf)
        greatest = np.max(X, axis=0, where=there, initial=-np.inf)
        return cls(total, mean, scatter, least, greatest, unit)

    @classmethod
    def _of_complete(cls, X: Array, sample_weight: Array | None, unit: float) -> ColumnSpread:
        """As `of`, of columns X (d, n), without a matrix of weights and of what is there."""
        weight = np.ones(X.shape[1]) if sample_weight is None else sample_weight
        total = float(weight.sum())
        origin = X[:, int(weight.argmax()), None]
        with np.errstate(over="ignore", invalid="ignore"):
            D = X - origin
            mean = origin + (D @ weight / total)[:, None]
            np.subtract(X, mean, out=D)
            left = (D @ weight / total)[:, None]
            D -= left
            scatter = np.asarray(np.square(D, out=D) @ weight)
            mean = (mean + left)[:, 0]
        weights, bounds = np.full(len(X), total), (X.min(axis=1), X.max(axis=1))
        return cls(weights, mean, scatter, *bounds, unit)

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
        """The same moments with weights in another power of two."""
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
