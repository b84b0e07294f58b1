"""Why a row is unusual, and why it has its label: what each column adds given all others.

With P the precision of a component, m its mean and v = P (x - m), the value of column j has, given
the other columns, the mean x_j - v_j / P_jj and the variance 1 / P_jj (Bishop, Pattern Recognition
and Machine Learning, 2.75 and 2.73). So three things are exact for every column of every row:

    z-score                 z_j = v_j / sqrt(P_jj)
    expected value          x_j - v_j / P_jj
    share of the distance   z_j^2: by so much the squared Mahalanobis distance of the row falls
                            when x_j is replaced by its expected value, the least that it can be

The shares do not add up to the distance: where columns are correlated each is what the others leave
to this one. Leaving column j out of the mixture lowers the log-odds of a component a over another
b by what its value adds to them given the other columns,

    log N_a(x_j | others) - log N_b(x_j | others) = (log P^a_jj / P^b_jj - z_aj^2 + z_bj^2) / 2.

Of a row with missing values all this is said of the columns that are there, without the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.covariance.family import CovarianceFamily
from gmm_dask.mixture.covariance.variances import Variances
from gmm_dask.mixture.missing.patterns import patterns
from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.integer[Any]]
Rows = npt.NDArray[Any]

BLOCK_BYTES = 1 << 20  # of the rows that are looked at together
LEAST_ROWS, MAX_BYTE = 32, 255  # for each column; the largest number of a byte


class RowReasons(NamedTuple):
    """For each row its columns of largest share of the distance, the largest first.

    Parameters
    ----------
    columns : (n, m)
        -1 where a row has values in fewer columns.
    scores : (n, m)
        z-score of the value given the other columns; NaN where there is no column.
    expected : (n, m)
        Mean of the value given the other columns, in the units of the data.
    """

    columns: Numbers
    scores: Array
    expected: Array


class LabelReasons(NamedTuple):
    """For each row the columns that speak most for its label and against another component.

    Parameters
    ----------
    columns : (n, m)
        -1 where a row has values in fewer columns, or where nothing is to be said for the label:
        rows beyond 1e154 standard deviations from it.
    evidence : (n, m)
        Log-odds that the value adds given the other columns; NaN where there is no column. It is
        negative where the value speaks for the other component.
    """

    columns: Numbers
    evidence: Array


def explain(
    X: Rows,
    parameters: Parameters,
    components: Numbers,
    others: Numbers | None,
    n_columns: int,
) -> tuple[RowReasons, LabelReasons | None]:
    """What makes each row unusual in its component, and what speaks for it and against another.

    Parameters
    ----------
    X : (n, d)
        NaN marks a missing value.
    parameters : Parameters
    components : (n,)
        The component that each row is compared with.
    others : (n,) or None
        The other one; None where nothing is asked of it.
    n_columns : int
        Columns named for each row at most, m.
    """
    n, m = len(X), min(n_columns, parameters.n_features)
    of_rows = RowReasons(np.empty((n, m), np.intp), np.empty((n, m)), np.empty((n, m)))
    of_labels = (
        None if others is None else LabelReasons(np.empty((n, m), np.intp), np.empty((n, m)))
    )
    of_parts = _Components(parameters)
    for at in _blocks(X):
        block = np.asarray(X[at], np.float64)
        mine = of_parts.given_others(block, components[at])
        columns = _foremost(np.abs(mine.z), m)
        scores = _picked(mine.z, columns)
        of_rows.columns[at], of_rows.scores[at] = columns, scores
        of_rows.expected[at] = _picked(block, columns) - scores * mine.spreads_at(columns)
        if of_labels is not None and others is not None:
            evidence = of_parts.given_others(block, others[at]).surprise
            evidence -= mine.surprise
            columns = _foremost(evidence, m)
            of_labels.columns[at], of_labels.evidence[at] = columns, _picked(evidence, columns)
    return of_rows, of_labels


def two_best(responsibilities: Array) -> tuple[Indices, Indices]:
    """The most likely component of each row, and the next, (n,) each; ties go to the lowest.

    Parameters
    ----------
    responsibilities : (n, k)
        Responsibilities of more than one component.
    """
    first, second = _foremost(responsibilities, 2).T
    return first, second


class _Given(NamedTuple):
    """What values are given the other columns of their rows.

    Parameters
    ----------
    z : (n, d)
        z-scores; NaN where there is no value.
    components : (n,)
        The component that each row is explained by.
    known : (k, d)
        Standard deviations where no value is missing.
    spread : (n, d) or None
        Spread of each value given the row's other values, where some values are missing.
    """

    z: Array
    components: Numbers
    known: Array
    spread: Array | None

    def spreads_at(self, columns: Indices) -> Array:
        """Standard deviations of the values at these columns, (n, m)."""
        if self.spread is not None:
            return _picked(self.spread, columns)
        return np.asarray(self.known[self.components[:, None], columns])

    @property
    def surprise(self) -> Array:
        """-log of the density of each value given the others, but for a constant, (n, d)."""
        with np.errstate(over="ignore"):
            found = self.z * self.z
        found *= 0.5
        found += np.log(self.known)[self.components] if self.spread is None else np.log(self.spread)
        return np.asarray(found)


class _Components:
    """What the columns of each component say of each other, found once for each component."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._known: dict[int, Array] = {}
        self._spreads = spreads_given_others(parameters.family)

    def given_others(self, X: Array, components: Numbers) -> _Given:
        """z-score and standard deviation of each value given the other columns."""
        z, known = np.empty(X.shape), self._spreads
        spread = known[components] if np.isnan(X).any() else None
        for j in np.unique(components).tolist():
            rows = np.flatnonzero(components == j)
            D = X[rows] - self._parameters.means[j]
            if spread is None:
                z[rows] = self._of_complete(j, D)
            else:
                z[rows], spread[rows] = self._of_incomplete(j, D)
        return _Given(z, components, known, spread)

    def _of_complete(self, j: int, D: Array) -> Array:
        """z of deviations D from component j."""
        factor, known = self._factor(j), self._spreads[j]
        if factor is None:
            return np.asarray(D / known)
        return np.asarray((D @ factor) @ (factor.T * known))

    def _of_incomplete(self, j: int, D: Array) -> tuple[Array, Array]:
        """z and standard deviations of D, of which values are missing.

        Without correlations other columns say nothing: a missing value stays one, and changes none.
        """
        factor, spread = self._factor(j), np.tile(self._spreads[j], (len(D), 1))
        if factor is None or not np.isnan(D).any():
            return self._of_complete(j, D), spread
        z, alone = np.full(D.shape, np.nan), self._parameters.take([j])
        for pattern in patterns(D):
            rows, observed = pattern.rows[:, None], pattern.observed
            if len(observed) == self._parameters.n_features:
                z[pattern.rows] = self._of_complete(j, D[pattern.rows])
            elif len(observed):
                U = alone.marginal(observed).dense_factor(0)
                left = _spread_given_others(U)
                z[rows, observed] = (pattern.of(D) @ U) @ (U.T * left)
                spread[rows, observed] = left
        return z, spread

    def _factor(self, j: int) -> Array | None:
        """The factor of component j; None where features are independent."""
        if isinstance(self._parameters.family, Variances):
            return None
        if j not in self._known:
            self._known[j] = self._parameters.dense_factor(j)
        return self._known[j]


def spreads_given_others(family: CovarianceFamily) -> Array:
    """Standard deviation of each column given all others, (k, d)."""
    if isinstance(family, Variances):
        return np.sqrt(family.variances)
    found = np.stack([*map(_spread_given_others, family.core_factors)])
    return np.ascontiguousarray(np.broadcast_to(found, (family.n_components, found.shape[1])))


def _spread_given_others(factor: Array) -> Array:
    """1 / sqrt(P_jj) of each column, (d,), from the factor U of P = U U^T."""
    return np.asarray(1.0 / np.linalg.norm(factor, axis=1))


def _blocks(X: Rows) -> Iterator[slice]:
    size = max(1, BLOCK_BYTES // (8 * max(1, X.shape[1])))
    return (slice(first, first + size) for first in range(0, len(X), size))


def _foremost(values: Array, m: int) -> Indices:
    """The columns of the m largest values of each row, (n, m).

    -1 where only NaN and -infinity are left.
    """
    absent, rows = ~(values > -np.inf), np.arange(len(values))
    any_absent, left = bool(absent.any()), np.array(values.T, order="C")  # each column in one run
    left[absent.T] = -np.inf
    found = np.empty((len(values), m), np.intp)
    for rank in range(m):
        column = _largest(left)
        left[column, rows] = -np.inf
        if any_absent:
            lacks, absent[rows, column] = absent[rows, column], True
            column[lacks] = -1
        found[:, rank] = column
    return found


def _largest(values: Array) -> Indices:
    """The row of the largest value in each column of (d, n), the first of equal ones."""
    d, n = values.shape
    if d > MAX_BYTE or n < LEAST_ROWS * d:
        return np.asarray(values.argmax(axis=0))
    best, at = values[0].copy(), np.zeros(n, np.uint8)
    for j in range(1, d):  # many values at a time: a third of the time of argmax
        np.maximum(at, (values[j] > best) * np.uint8(j), out=at)
        np.maximum(best, values[j], out=best)
    return at.astype(np.intp)


def _picked(values: Array, columns: Indices) -> Array:
    """The values at these columns, (n, m); NaN where the column is -1."""
    there = columns >= 0
    if there.all():
        return np.take_along_axis(values, columns, axis=1)
    found = np.take_along_axis(values, np.maximum(columns, 0), axis=1)
    return np.where(there, found, np.nan)
