"""Rows that have values in the same features, at once.

Over the features that they have the mixture is again a mixture, of the marginals, so its E-step
is the plain one; and because the conditional mean of what is missing is linear in what is there,
the sums over all features follow from the sums over the observed ones without a look at the rows
(Little and Rubin, Statistical Analysis with Missing Data, 11.2; Ghahramani and Jordan 1994,
NIPS 6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.missing.patterns import Indices, Pattern
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import RowScores

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]


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
