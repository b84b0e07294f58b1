"""Rows of many patterns at once, where most patterns have a row or two.

Nothing is done pattern by pattern. Without correlations a missing value only drops out of sums.
With correlations the patterns that have equally many features are stacked: their Cholesky factors
are found in one call, and solved with in steps that each serve all rows. Arrays of such a stack
have the pattern or row as their last axis ("lanes").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.covariance import CovarianceFamily
from gmm_dask.mixture.covariance.factors import not_completed
from gmm_dask.mixture.missing.patterns import Bundle, Indices, Mask
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import LOG_2PI, RowScores, is_far, normalise, positive

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]


class Scattered(ABC):
    """Some rows, whatever their patterns; X (n, d) are the rows themselves.

    Raises
    ------
    numpy.linalg.LinAlgError
        From any method but the first: the covariance of some features is not positive definite.
    """

    def __init__(self, X: Rows, rows: Indices, parameters: Parameters) -> None:
        self.X = np.asarray(X, dtype=np.float64)
        self.rows = rows
        self.parameters = parameters
        self.absent: Mask = np.isnan(self.X)

    @cached_property
    def log_joint(self) -> Array:
        """Log of weight times density of what is there, (n, k)."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return self._log_densities() + np.log(self.parameters.weights)

    @property
    def far(self) -> Mask:
        """Rows whose shares cannot be told from their distances, (n,)."""
        return is_far(self.log_joint.max(axis=1), self.parameters)

    def statistics(self, sample_weight: Rows | None) -> SufficientStatistics:
        """Expected sufficient statistics over all features."""
        log_resp, log_density = self._log_responsibilities()
        resp, n = np.exp(log_resp), len(self.rows)
        log_likelihood, sum_weight = float(log_density.sum()), float(n)
        if sample_weight is not None:
            weight = np.ascontiguousarray(sample_weight, dtype=np.float64)
            log_likelihood = float(weight @ np.where(positive(weight), log_density, 0.0))
            sum_weight = float(weight.sum())
            resp *= weight[:, None]
        total = SufficientStatistics.zero(self.parameters)
        root, ones, work = np.sqrt(resp), np.ones(n), np.empty_like(self.X)
        for j, V in enumerate(self._completed(root)):
            total.sum_x[j] = root[:, j] @ V
            self.parameters.family.add_scatter(total.sum_xx, j, ones, V, work)
        return SufficientStatistics(
            n,
            sum_weight,
            log_likelihood,
            resp.sum(axis=0),
            total.sum_x,
            total.sum_xx + self._unexplained(resp),
            sum_observed=resp.T @ (~self.absent).astype(np.float64),
        )

    def scores(self) -> RowScores:
        """What the mixture of the observed features says of each row."""
        log_resp, log_density = self._log_responsibilities()
        labels = log_resp.argmax(axis=1)
        largest = np.take_along_axis(log_resp, labels[:, None], axis=1)[:, 0]
        return RowScores(labels.astype(np.int32), log_density, np.exp(largest))

    def responsibilities(self) -> Array:
        """Posterior probability of each component, (n, k)."""
        return np.exp(self._log_responsibilities()[0])

    def imputed(self) -> Array:
        """The rows with conditional means where values are missing, (n, d)."""
        resp = self.responsibilities()
        expected = resp @ self.parameters.means
        for V in self._completed(resp):
            expected += V
        return np.where(self.absent, expected, self.X)

    def _log_responsibilities(self) -> tuple[Array, Array]:
        log_resp = self.log_joint.copy()
        return log_resp, normalise(log_resp, log_resp.max(axis=1))

    @abstractmethod
    def take(self, places: Indices) -> Scattered:
        """Some of these rows, by their places in ascending order."""

    @abstractmethod
    def _log_densities(self) -> Array:
        """Log-density of what is there in each component, (n, k)."""

    @abstractmethod
    def _completed(self, factors: Array) -> Iterator[Array]:
        """For each component x - m times the row's factor (n, k), expected where missing, (n, d).

        The factor comes first: of a far row with the share 0 nothing is left that could overflow.
        """

    @abstractmethod
    def _unexplained(self, resp: Array) -> Array:
        """Sum of r times the covariance that is left of missing values, in the family's shape."""


class Independent(Scattered):
    """Rows under covariances without correlations."""

    def take(self, places: Indices) -> Independent:
        """Some of these rows, by their places in ascending order."""
        return Independent(self.X[places], self.rows[places], self.parameters)

    @cached_property
    def _variances(self) -> Array:
        return self.parameters.family.variances

    def _deviations(self, j: int) -> Array:
        return np.where(self.absent, 0.0, self.X - self.parameters.means[j])

    def _log_densities(self) -> Array:
        factors, there = 1 / np.sqrt(self._variances), (~self.absent).astype(np.float64)
        result = there @ np.log(factors).T
        result -= 0.5 * LOG_2PI * there.sum(axis=1, keepdims=True)
        for j, factor in enumerate(factors):
            Z = self._deviations(j) * factor
            result[:, j] -= 0.5 * np.einsum("nd,nd->n", Z, Z)
        return np.asarray(result)

    def _completed(self, factors: Array) -> Iterator[Array]:
        for j in range(self.parameters.n_components):
            yield factors[:, j, None] * self._deviations(j)

    def _unexplained(self, resp: Array) -> Array:
        lost = resp.T @ self.absent.astype(np.float64)
        return self.parameters.family.uncorrelated(lost * self._variances)


@dataclass(frozen=True, eq=False)
class Relations:
    """What ties features together, in units in which nothing is badly scaled; c is 1 if tied.

    Parameters
    ----------
    scale : (c, d)
        Standard deviations.
    correlations : (c, d, d)
    norms : (c, d)
        Square roots of the precisions' diagonal.
    partial : (c, d, d)
        Precisions with a diagonal of ones.
    """

    scale: Array
    correlations: Array
    norms: Array
    partial: Array

    @classmethod
    def of(cls, family: CovarianceFamily) -> Relations | None:
        """What ties the features together; None where they are independent."""
        if family.matrices is None:
            return None
        covariances, factors = family.matrices, family.core_factors
        scale = np.sqrt(np.einsum("cdd->cd", covariances))
        correlations = covariances / scale[:, :, None] / scale[:, None, :]
        norms = np.linalg.norm(factors, axis=-1)
        rows = factors / norms[:, :, None]
        return cls(scale, correlations, norms, rows @ rows.swapaxes(1, 2))


class Correlated(Scattered):
    """The rows of a bundle under covariances with correlations."""

    def __init__(
        self, X: Rows, bundle: Bundle, parameters: Parameters, relations: Relations
    ) -> None:
        super().__init__(X, bundle.rows, parameters)
        self.bundle = bundle
        self.relations = relations
        self.which = bundle.which

    def take(self, places: Indices) -> Correlated:
        """Some of these rows, by their places in ascending order."""
        bundle = self.bundle.take(places)
        return Correlated(self.X[places], bundle, self.parameters, self.relations)

    def _of_rows(self, lanes: Array) -> Array:
        """Lanes of patterns as lanes of rows."""
        return lanes if len(self.rows) == lanes.shape[-1] else lanes[..., self.which]

    @cached_property
    def _deviations(self) -> Array:
        """x - m of what is there, (o, k, n)."""
        observed = self.bundle.observed
        values = np.take_along_axis(self.X, observed[self.which], axis=1)
        means = self._of_rows(_lanes(self.parameters.means[:, observed]))
        return np.asarray(values.T[:, None, :] - means)

    def _log_densities(self) -> Array:
        observed, relations = self.bundle.observed, self.relations
        lower = _choleskys(relations.correlations, observed)
        scale = _lanes(relations.scale[:, observed])
        diagonal = np.einsum("ookp->okp", lower)
        log_determinants = (np.log(diagonal) + np.log(scale)).sum(axis=0)
        Z = self._deviations / self._of_rows(scale)
        _solve(self._of_rows(lower), Z)
        result = -0.5 * np.einsum("okn,okn->kn", Z, Z) - self._of_rows(log_determinants)
        return np.asarray(result.T - 0.5 * LOG_2PI * observed.shape[1], order="C")

    @cached_property
    def _residual(self) -> Array:
        """Inverse of the partial correlations of what is missing, (m, m, c, p)."""
        try:
            lower = _choleskys(self.relations.partial, self.bundle.missing)
        except np.linalg.LinAlgError:
            raise not_completed() from None
        inverse = np.zeros_like(lower)
        np.einsum("mmcp->mcp", inverse)[:] = 1.0
        _solve(lower, inverse)
        return np.asarray(np.einsum("xacp,xbcp->abcp", inverse, inverse))

    def _completed(self, factors: Array) -> Iterator[Array]:
        # Regression on what is there: -P_mm^-1 P_mo, from the precision (Bishop, PRML, 2.75).
        observed, missing = self.bundle.observed, self.bundle.missing
        norms, partial = self.relations.norms, self.relations.partial
        there = self._deviations * factors.T
        across = _lanes(partial[:, missing[:, :, None], observed[:, None, :]])
        Z = there * self._of_rows(_lanes(norms[:, observed]))
        Z = np.einsum("mokn,okn->mkn", self._of_rows(across), Z)
        Z = np.einsum("amkn,mkn->akn", self._of_rows(self._residual), Z)
        expected = -Z / self._of_rows(_lanes(norms[:, missing]))
        for j in range(self.parameters.n_components):
            V = np.empty_like(self.X)
            np.put_along_axis(V, observed[self.which], there[:, j].T, axis=1)
            np.put_along_axis(V, missing[self.which], expected[:, j].T, axis=1)
            yield V

    def _unexplained(self, resp: Array) -> Array:
        # Covariance P_mm^-1 of what is missing given what is there (Bishop, PRML, 2.73).
        d, missing = self.parameters.n_features, self.bundle.missing.T
        c = len(self.relations.norms)
        shares = np.add.reduceat(resp.T, self.bundle.starts, axis=1)
        if c == 1:
            shares = shares.sum(axis=0, keepdims=True)
        norms = _lanes(self.relations.norms[:, self.bundle.missing])
        left = self._residual / norms[:, None] / norms[None, :] * shares
        place = (np.arange(c)[:, None] * d + missing[:, None, None]) * d + missing[:, None]
        total = np.bincount(place.ravel(), left.ravel(), minlength=c * d * d).reshape(c, d, d)
        both = (total + total.swapaxes(1, 2)) / 2  # exactly symmetric, as all scatter is
        return np.asarray(both.reshape(self.parameters.covariances.shape))


def _lanes(stack: Array) -> Array:
    """Components and patterns first (c, p, ...) as components and patterns last."""
    axes = (*range(2, stack.ndim), 0, 1)
    return np.ascontiguousarray(stack.transpose(axes))


def _choleskys(matrices: Array, features: Indices) -> Array:
    """Lower factors of the parts of (c, d, d) that features (p, o) choose, (o, o, c, p)."""
    parts = matrices[:, features[:, :, None], features[:, None, :]]
    return _lanes(np.asarray(np.linalg.cholesky(parts), dtype=np.float64))


def _solve(lower: Array, Z: Array) -> None:
    """Solve lower triangular systems (o, o, c, n) in place; Z (o, ..., k, n)."""
    for a in range(len(lower)):
        if a:
            Z[a] -= np.einsum("bkn,b...kn->...kn", lower[a, :a], Z[:a])
        Z[a] /= lower[a, a]
