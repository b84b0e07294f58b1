"""Exact EM with values missing at random: NaN marks a value that is not there.

Rows are grouped by the pattern of what is there. Over the features of a pattern the mixture is
again a mixture, of the marginals, so its E-step is the plain one; and because the conditional
mean of what is missing is linear in what is there, the sums over all features follow from the
sums over the observed ones without a look at the rows (Little and Rubin, Statistical Analysis
with Missing Data, 11.2; Ghahramani and Jordan 1994, NIPS 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import RowScores

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Rows that have values in the same features.

    Parameters
    ----------
    rows : (m,)
        Their indices, ascending.
    observed, missing : indices of features
    """

    rows: Indices
    observed: Indices
    missing: Indices

    def of(self, X: Rows) -> Rows:
        """The values that are there, (m, observed)."""
        return X[self.rows[:, None], self.observed]


def patterns(X: Rows) -> Iterator[Pattern]:
    """The patterns of X (n, d), in an order that the patterns alone decide."""
    if not len(X):
        return
    absent = np.isnan(X)
    packed = np.packbits(absent, axis=1)
    _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(inverse.ravel()))
    for rows, example in zip(np.split(order, ends[:-1]), first, strict=True):
        yield Pattern(rows, np.flatnonzero(~absent[example]), np.flatnonzero(absent[example]))


def e_step(
    X: Rows, parameters: Parameters, sample_weight: Rows | None = None, n_worst: int = 0
) -> SufficientStatistics:
    """Expected sufficient statistics of rows with missing values; one read of X.

    Where nothing is missing this is `steps.e_step`, bit for bit. The worst rows are looked for
    among complete ones, whose densities can be compared.
    """
    if not np.isnan(X).any():
        return steps.e_step(X, parameters, sample_weight, n_worst)
    total = SufficientStatistics.zero(parameters, n_worst)
    for pattern in patterns(X):
        weight = None if sample_weight is None else sample_weight[pattern.rows]
        if not len(pattern.missing):
            total += steps.e_step(pattern.of(X), parameters, weight, n_worst)
        elif not len(pattern.observed):
            total += _of_empty_rows(len(pattern.rows), parameters, weight)
        else:
            marginal = parameters.marginal(pattern.observed)
            found = steps.e_step(pattern.of(X), marginal, weight)
            total += _completed(found, parameters, pattern)
    return replace(total, n_rows=X.shape[0])


def score_rows(X: Rows, parameters: Parameters) -> RowScores:
    """Label, log-density of what is there, and largest responsibility of each row.

    A row without any value has density 1 and the label of the heaviest component.
    """
    if not np.isnan(X).any():
        return steps.score_rows(X, parameters)
    n = X.shape[0]
    scores = RowScores(np.empty(n, np.int32), np.empty(n), np.empty(n))
    for pattern in patterns(X):
        found = _score_pattern(pattern.of(X), parameters, pattern.observed)
        scores.labels[pattern.rows] = found.labels
        scores.log_density[pattern.rows] = found.log_density
        scores.max_responsibility[pattern.rows] = found.max_responsibility
    return scores


def labels(X: Rows, parameters: Parameters) -> npt.NDArray[np.int32]:
    """The component of largest responsibility for each row, (n,)."""
    return score_rows(X, parameters).labels


def log_density(X: Rows, parameters: Parameters) -> Array:
    """Log of the marginal density at each row, (n,)."""
    return score_rows(X, parameters).log_density


def responsibilities(X: Rows, parameters: Parameters) -> Array:
    """Posterior probability of each component given what is there, (n, k)."""
    resp = np.empty((X.shape[0], parameters.n_components))
    for pattern in patterns(X):
        resp[pattern.rows] = _pattern_responsibilities(pattern, X, parameters)
    return resp


def impute(X: Rows, parameters: Parameters) -> Array:
    """X with each missing value replaced by its conditional mean given the row, (n, d) float64."""
    filled = np.array(X, dtype=np.float64)
    k = parameters.n_components
    for pattern in patterns(X):
        if not len(pattern.missing):
            continue
        resp = _pattern_responsibilities(pattern, X, parameters)
        factors = parameters.precisions_cholesky
        by = parameters.family.regressions(factors, (pattern.observed, pattern.missing), k)
        expected = np.zeros((len(pattern.rows), len(pattern.missing)))
        for j, mean in enumerate(parameters.means):
            D = pattern.of(X) - mean[pattern.observed]
            expected += resp[:, j, None] * (mean[pattern.missing] + D @ by[j].T)
        filled[pattern.rows[:, None], pattern.missing] = expected
    return filled


def _completed(
    found: SufficientStatistics, parameters: Parameters, pattern: Pattern
) -> SufficientStatistics:
    sum_x, sum_xx = parameters.family.completed(
        (found.sum_resp, found.sum_x, found.sum_xx),
        parameters.covariances,
        parameters.precisions_cholesky,
        (pattern.observed, pattern.missing),
    )
    return replace(found, sum_x=sum_x, sum_xx=sum_xx, worst=None)


def _of_empty_rows(
    n: int, parameters: Parameters, sample_weight: Rows | None
) -> SufficientStatistics:
    """Rows that say nothing: the mixture's own shares, means and covariances, density 1."""
    weight = float(n if sample_weight is None else np.sum(sample_weight, dtype=np.float64))
    zero = SufficientStatistics.zero(parameters)
    rows, d = weight * parameters.weights, parameters.n_features
    sum_xx = parameters.family.expected_scatter(rows, parameters.covariances, d)
    return replace(zero, n_rows=n, sum_weight=weight, sum_resp=rows, sum_xx=sum_xx)


def _score_pattern(X: Rows, parameters: Parameters, observed: Indices) -> RowScores:
    n = X.shape[0]
    if not len(observed):
        best = int(parameters.weights.argmax())
        largest = np.full(n, parameters.weights[best])
        return RowScores(np.full(n, best, np.int32), np.zeros(n), largest)
    return steps.score_rows(X, _of_features(parameters, observed))


def _pattern_responsibilities(pattern: Pattern, X: Rows, parameters: Parameters) -> Array:
    if not len(pattern.observed):
        return np.broadcast_to(parameters.weights, (len(pattern.rows), parameters.n_components))
    return steps.responsibilities(pattern.of(X), _of_features(parameters, pattern.observed))


def _of_features(parameters: Parameters, observed: Indices) -> Parameters:
    return parameters if len(observed) == parameters.n_features else parameters.marginal(observed)
