"""Exact EM with values missing at random: NaN marks a value that is not there.

The patterns of what is there decide how rows are gone through: those of a pattern that many rows
share as a group, all others many patterns at a time. Both are the same algebra.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.missing.patterns import Indices, Pattern, Patterns
from gmm_dask.mixture.missing.scattered import Correlated, Independent, Relations, Scattered
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import RowScores

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
BLOCK_BYTES = 16 << 20  # rows whose patterns are looked at together, as float64
STACK_BYTES = 8 << 20  # of a stack of matrices
POPULOUS = 64  # rows of one pattern that are quicker as a group of their own


@dataclass(frozen=True, eq=False)
class Grouped:
    """The rows of one pattern; X (n, d) are all rows."""

    X: Rows
    pattern: Pattern
    parameters: Parameters

    @property
    def rows(self) -> Indices:
        """Indices of the rows."""
        return self.pattern.rows

    def statistics(self, sample_weight: Rows | None) -> SufficientStatistics:
        """Expected sufficient statistics over all features."""
        pattern, parameters = self.pattern, self.parameters
        if not len(pattern.missing):
            return steps.e_step(pattern.of(self.X), parameters, sample_weight)
        if not len(pattern.observed):
            return self._of_empty_rows(sample_weight)
        found = steps.e_step(pattern.of(self.X), self._marginal(), sample_weight)
        sum_x, sum_xx = parameters.family.completed(
            (found.sum_resp, found.sum_x, found.sum_xx), pattern.observed, pattern.missing
        )
        sum_observed = np.zeros_like(sum_x)
        sum_observed[:, pattern.observed] = found.sum_resp[:, None]
        return replace(found, sum_x=sum_x, sum_xx=sum_xx, sum_observed=sum_observed)

    def scores(self) -> RowScores:
        """What the mixture of the observed features says of each row."""
        if len(self.pattern.observed):
            return steps.score_rows(self.pattern.of(self.X), self._marginal())
        n, weights = len(self.rows), self.parameters.weights
        best = int(weights.argmax())
        return RowScores(np.full(n, best, np.int32), np.zeros(n), np.full(n, weights[best]))

    def responsibilities(self) -> Array:
        """Posterior probability of each component, (n, k)."""
        if len(self.pattern.observed):
            return steps.responsibilities(self.pattern.of(self.X), self._marginal())
        k = self.parameters.n_components
        return np.broadcast_to(self.parameters.weights, (len(self.rows), k))

    def imputed(self) -> Array:
        """The rows with conditional means where values are missing, (n, d)."""
        pattern, parameters, resp = self.pattern, self.parameters, self.responsibilities()
        X = np.array(self.X[self.rows], dtype=np.float64)
        by = parameters.family.regressions(pattern.observed, pattern.missing)
        expected = np.zeros((len(X), len(pattern.missing)))
        for j, mean in enumerate(parameters.means):
            D = X[:, pattern.observed] - mean[pattern.observed]
            expected += resp[:, j, None] * (mean[pattern.missing] + D @ by[j].T)
        X[:, pattern.missing] = expected
        return X

    def _marginal(self) -> Parameters:
        complete = not len(self.pattern.missing)
        return self.parameters if complete else self.parameters.marginal(self.pattern.observed)

    def _of_empty_rows(self, sample_weight: Rows | None) -> SufficientStatistics:
        """Rows that say nothing: the mixture's own shares, means and covariances, density 1."""
        n, parameters = len(self.rows), self.parameters
        weight = float(n if sample_weight is None else np.sum(sample_weight, dtype=np.float64))
        rows = weight * parameters.weights
        sum_xx = parameters.family.expected_scatter(rows)
        zero = SufficientStatistics.zero(parameters)
        return replace(
            zero,
            n_rows=n,
            sum_weight=weight,
            sum_resp=rows,
            sum_xx=sum_xx,
            sum_observed=np.zeros_like(zero.sum_x),
        )


Part = Grouped | Scattered


def e_step(
    X: Rows, parameters: Parameters, sample_weight: Rows | None = None
) -> SufficientStatistics:
    """Expected sufficient statistics of rows with missing values; one read of X.

    Where nothing is missing this is `steps.e_step`, bit for bit.
    """
    if _complete(X):
        return steps.e_step(X, parameters, sample_weight)
    steps.check_weights(X, sample_weight)
    total = SufficientStatistics.zero(parameters)
    for part in _parts(X, parameters):
        weight = None if sample_weight is None else sample_weight[part.rows]
        total += part.statistics(weight)
    return replace(total, n_rows=X.shape[0])


def score_rows(X: Rows, parameters: Parameters) -> RowScores:
    """Label, log-density of what is there, and largest responsibility of each row.

    A row without any value has density 1 and the label of the heaviest component.
    """
    if _complete(X):
        return steps.score_rows(X, parameters)
    n = X.shape[0]
    scores = RowScores(np.empty(n, np.int32), np.empty(n), np.empty(n))
    for part in _parts(X, parameters):
        found = part.scores()
        scores.labels[part.rows] = found.labels
        scores.log_density[part.rows] = found.log_density
        scores.max_responsibility[part.rows] = found.max_responsibility
    return scores


def responsibilities(X: Rows, parameters: Parameters) -> Array:
    """Posterior probability of each component given what is there, (n, k)."""
    if _complete(X):
        return steps.responsibilities(X, parameters)
    resp = np.empty((X.shape[0], parameters.n_components))
    for part in _parts(X, parameters):
        resp[part.rows] = part.responsibilities()
    return resp


def impute(X: Rows, parameters: Parameters) -> Array:
    """X with each missing value replaced by its conditional mean given the row, (n, d) float64."""
    filled = np.array(X, dtype=np.float64)
    if not _complete(X):
        for part in _parts(X, parameters):
            filled[part.rows] = part.imputed()
    return filled


def _complete(X: Rows) -> bool:
    return not any(np.isnan(X[block]).any() for block in _blocks(X))


def _blocks(X: Rows) -> Iterator[slice]:
    n, d = X.shape
    size = max(1, BLOCK_BYTES // (8 * max(d, 1)))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _parts(X: Rows, parameters: Parameters) -> Iterator[Part]:
    """All rows, each in one part."""
    if X.shape[1] != parameters.n_features:
        raise ValueError(f"X has {X.shape[1]} features, the mixture has {parameters.n_features}")
    in_groups = parameters.family.loadings is not None
    relations = Relations.of(parameters.family)
    for block in _blocks(X):
        if in_groups:
            yield from _groups(X, block, parameters)
        elif relations is None:
            yield from _independent(X, block, parameters)
        else:
            yield from _correlated(X, block, parameters, relations)


def _groups(X: Rows, block: slice, parameters: Parameters) -> Iterator[Part]:
    found = Patterns.of(np.isnan(X[block]))
    found = replace(found, rows=found.rows + block.start)
    for pattern in found.split(0, 1)[0]:
        yield Grouped(X, pattern, parameters)


def _correlated(
    X: Rows, block: slice, parameters: Parameters, relations: Relations
) -> Iterator[Part]:
    k, d = parameters.means.shape
    stack_rows = max(1, STACK_BYTES // (16 * k * d * d))
    found = Patterns.of(np.isnan(X[block]))
    found = replace(found, rows=found.rows + block.start)
    groups, bundles = found.split(POPULOUS, stack_rows)
    for pattern in groups:
        yield Grouped(X, pattern, parameters)
    for bundle in bundles:
        yield from _safely(X, Correlated(X[bundle.rows], bundle, parameters, relations))


def _independent(X: Rows, block: slice, parameters: Parameters) -> Iterator[Part]:
    n_missing = np.isnan(X[block]).sum(axis=1)
    k, d = parameters.means.shape
    every = np.arange(d)
    for several, observed in ((0, every), (d, every[:0])):
        rows = np.flatnonzero(n_missing == several) + block.start
        if len(rows):
            yield Grouped(X, Pattern(rows, observed, np.setdiff1d(every, observed)), parameters)
    rows = np.flatnonzero((n_missing > 0) & (n_missing < d)) + block.start
    size = steps.tile_rows(k, d)
    for tile in (rows[i : i + size] for i in range(0, len(rows), size)):
        yield from _safely(X, Independent(X[tile], tile, parameters))


def _safely(X: Rows, part: Scattered) -> Iterator[Part]:
    """The part; rows whose distances do not compare, or do not exist, go as groups."""
    try:
        far = part.far
    except np.linalg.LinAlgError:  # the group's own error names component and columns
        far = np.ones(len(part.rows), bool)
    if not far.any():
        yield part
        return
    for pattern in Patterns.of(part.absent[far]).split(0, 1)[0]:
        yield Grouped(X, replace(pattern, rows=part.rows[far][pattern.rows]), part.parameters)
    if not far.all():
        yield part.take(np.flatnonzero(~far))
