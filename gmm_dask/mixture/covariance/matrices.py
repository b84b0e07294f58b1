"""Full and tied covariances: whole matrices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.covariance.factors import (
    combined_features,
    factor_covariances,
    factor_precision,
    not_completed,
    units_of,
    within_ratio,
)
from gmm_dask.mixture.covariance.family import FACTOR_SLACK, Array, CovarianceFamily, Indices


@dataclass(frozen=True, eq=False)
class Matrices(CovarianceFamily):
    """What full and tied covariances have in common."""

    precisions_are = "symmetric, positive-definite"

    @property
    def matrices(self) -> Array:
        return self._stacked(self.covariances)

    @cached_property
    def core_factors(self) -> Array:
        return self._stacked(self.precisions_cholesky)

    @property
    def precisions(self) -> Array:
        factors = self.precisions_cholesky
        return factors @ factors.swapaxes(-1, -2)

    def squared_distances(self, D: Array, j: int, work: Array, out: Array) -> None:
        np.matmul(D, self._of(self.precisions_cholesky, j), out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    def add_scatter(self, scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        # One operand on both sides, so that BLAS returns an exactly symmetric product.
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        target = self._of(scatter, j)
        target += work.T @ work

    def uncorrelated(self, squares: Array) -> Array:
        return self.kept(np.asarray(squares[:, :, None] * np.eye(self.n_features)))

    def one_of_variances(self, variances: Array) -> Array:
        return np.diag(variances)

    def limited(self, ratio: float, rows: Array, variances: Array) -> Self:
        scale = units_of(variances)
        values, vectors = np.linalg.eigh(self.matrices / scale[:, None] / scale)
        behind = [rows.sum() if owner is None else rows[owner] for owner in self.owners]
        held = within_ratio(values, np.array(behind), ratio)
        if held is values:
            return self
        matrices = (vectors * held[:, None, :]) @ vectors.swapaxes(1, 2)
        matrices = _symmetric(matrices) * scale[:, None] * scale
        return self._with(matrices.reshape(self.covariances.shape))

    def marginal(self, observed: Indices) -> Self:
        covariances = self.covariances[..., observed[:, None], observed]
        return type(self)(self.n_components, len(observed), covariances)

    def completed(
        self, sums: tuple[Array, Array, Array], observed: Indices, missing: Indices
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = sums
        coefficients, residual = _regression(self.precisions_cholesky, observed, missing)
        x = np.empty((self.n_components, self.n_features))
        x[:, observed], x[:, missing] = sum_x, self._predicted(coefficients, sum_x)
        added = self._times(sum_resp, residual)
        return x, _completed_scatter(sum_xx, coefficients, added, observed, missing)

    def expected_scatter(self, rows: Array) -> Array:
        return self._times(rows, self.covariances)

    def encoded(self, other: Self) -> Array:
        factors = self._stacked(self.precisions_cholesky)
        return _log_cholesky(factors.swapaxes(-1, -2) @ other.matrices @ factors)

    def decoded(self, numbers: Array) -> Self:
        factors, d = self._stacked(self.precisions_cholesky), self.n_features
        root = np.linalg.solve(factors.swapaxes(-1, -2), _from_log_cholesky(numbers, d))
        covariances = _symmetric(root @ root.swapaxes(-1, -2))
        return self._with(covariances.reshape(self.covariances.shape))

    def least_pivots(self) -> Array:
        # All at once, and one by one only where LAPACK stops at one.
        correlations = _correlations(self.matrices)
        try:
            return _least_pivots(correlations)
        except np.linalg.LinAlgError:
            return np.array([_pivot_or_none(each) for each in correlations])

    def dependent_features(self, i: int) -> tuple[int, ...]:
        return combined_features(_correlations(self.matrices[i]))

    def factors_problem(self) -> str | None:
        with np.errstate(all="ignore"):
            for j, (correlation, factor) in enumerate(self._scaled()):
                if np.tril(factor, -1).any() or not (np.diagonal(factor) > 0).all():
                    return f"is not upper triangular with a positive diagonal in matrix {j}"
                rounding = 64 * len(factor) * np.finfo(float).eps * np.linalg.cond(correlation)
                error = np.abs(factor.T @ correlation @ factor - np.eye(len(factor))).max()
                if not error <= FACTOR_SLACK + rounding:
                    return f"is not the factor of the inverse covariance in matrix {j}"
        return None

    def _stacked(self, values: Array) -> Array:
        return values.reshape(-1, self.n_features, self.n_features)

    def _scaled(self) -> list[tuple[Array, Array]]:
        """Correlation and factor of each matrix, in units of the standard deviations."""
        matrices, factors = self.matrices, self._stacked(self.precisions_cholesky)
        scales = np.sqrt(np.einsum("kdd->kd", matrices))
        correlations = matrices / scales[:, :, None] / scales[:, None, :]
        return list(zip(correlations, factors * scales[:, :, None], strict=True))

    @staticmethod
    @abstractmethod
    def _of(values: Array, j: int) -> Array:
        """The matrix of component j, as a view."""

    @staticmethod
    @abstractmethod
    def _times(rows: Array, matrices: Array) -> Array:
        """Each matrix times the rows that it stands for."""

    @staticmethod
    @abstractmethod
    def _predicted(coefficients: Array, sum_x: Array) -> Array:
        """Sums of missing features from those of observed ones, (k, missing)."""


@dataclass(frozen=True, eq=False)
class Full(Matrices):
    """Each component has its own covariance matrix, (k, d, d)."""

    name = "full"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k, d, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k * d * (d + 1) // 2

    @classmethod
    def diagonal(cls, k: int, variances: Array) -> Self:
        covariances = np.broadcast_to(np.diag(variances), (k, len(variances), len(variances)))
        return cls(k, len(variances), covariances)

    @classmethod
    def of_precisions(cls, k: int, d: int, precisions: Array) -> Self:
        factors = np.stack([factor_precision(p, j) for j, p in enumerate(precisions)])
        return cls(k, d, _inverses(factors), factors)

    def averaged(self, scatter: Array, rows: Array, extra: float = 0.0) -> Self:
        counted = rows + extra
        return self._with(scatter / np.where(counted == 0, 1.0, counted)[:, None, None])

    def regressions(self, observed: Indices, missing: Indices) -> Array:
        return _regression(self.precisions_cholesky, observed, missing)[0]

    def _factored(self) -> Array:
        return factor_covariances(self.covariances)

    @staticmethod
    def _of(values: Array, j: int) -> Array:
        return np.asarray(values[j])

    @staticmethod
    def _times(rows: Array, matrices: Array) -> Array:
        return np.asarray(rows[:, None, None] * matrices)

    @staticmethod
    def _predicted(coefficients: Array, sum_x: Array) -> Array:
        return np.asarray(np.einsum("kmo,ko->km", coefficients, sum_x))


@dataclass(frozen=True, eq=False)
class Tied(Matrices):
    """All components share one covariance matrix, (d, d)."""

    name = "tied"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (d, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return d * (d + 1) // 2

    @classmethod
    def diagonal(cls, k: int, variances: Array) -> Self:
        return cls(k, len(variances), np.diag(variances))

    @classmethod
    def of_precisions(cls, k: int, d: int, precisions: Array) -> Self:
        factor = factor_precision(precisions, 0)
        return cls(k, d, _inverses(factor), factor)

    @property
    def owners(self) -> Sequence[int | None]:
        return (None,)

    def scatter_of(self, weights: Array, V: Array) -> Array:
        root = V * np.sqrt(weights)[:, None]
        return np.asarray(root.T @ root)

    def kept(self, sums: Array) -> Array:
        return np.asarray(sums.sum(axis=0))

    def averaged(self, scatter: Array, rows: Array, extra: float = 0.0) -> Self:
        return self._with(scatter / (rows.sum() + extra))

    def replaced(self, components: npt.NDArray[Any] | Sequence[int], other: Self) -> Self:
        return self

    def average(self, shares: Array) -> Self:
        return replace(self, n_components=1)

    def take(self, order: Sequence[int] | Indices) -> Self:
        return replace(self, n_components=len(order), known_factors=self._known())

    def least_shared(self, values: Array, alive: npt.NDArray[np.bool_]) -> Array:
        return np.asarray(values[alive].min(axis=0, keepdims=True))

    def regressions(self, observed: Indices, missing: Indices) -> Array:
        coefficients, _ = _regression(self.precisions_cholesky, observed, missing)
        return np.broadcast_to(coefficients, (self.n_components, *coefficients.shape))

    def _factored(self) -> Array:
        return np.asarray(factor_covariances(self.covariances[None])[0])

    @staticmethod
    def _of(values: Array, j: int) -> Array:
        return values

    @staticmethod
    def _times(rows: Array, matrices: Array) -> Array:
        return np.asarray(rows.sum() * matrices)

    @staticmethod
    def _predicted(coefficients: Array, sum_x: Array) -> Array:
        return np.asarray(sum_x @ coefficients.T)


def _inverses(factors: Array) -> Array:
    """(U U^T)^-1."""
    with np.errstate(over="ignore", invalid="ignore"):
        inverses = np.linalg.inv(factors)
        return np.asarray(inverses.swapaxes(-1, -2) @ inverses)


def _regression(factors: Array, observed: Indices, missing: Indices) -> tuple[Array, Array]:
    """Coefficients of missing on observed features, and covariances of what they leave over.

    From the precision P = U U^T: coefficients -P_mm^-1 P_mo, residual covariance P_mm^-1 (Bishop,
    PRML, 2.75 and 2.73). No difference of covariances is taken, so none is lost to cancellation.
    """
    norms = np.linalg.norm(factors, axis=-1)
    rows = factors / norms[..., None]
    of_missing, of_observed = rows[..., missing, :], rows[..., observed, :]
    try:
        lower = np.linalg.cholesky(of_missing @ of_missing.swapaxes(-1, -2))
    except np.linalg.LinAlgError:
        raise not_completed() from None
    inverse = np.linalg.inv(lower)
    unit = inverse.swapaxes(-1, -2) @ inverse
    scale = norms[..., missing]
    coefficients = -unit @ (of_missing @ of_observed.swapaxes(-1, -2))
    coefficients *= norms[..., None, observed] / scale[..., :, None]
    return coefficients, _symmetric(unit / scale[..., :, None] / scale[..., None, :])


def _completed_scatter(
    sum_xx: Array, coefficients: Array, added: Array, observed: Indices, missing: Indices
) -> Array:
    d = len(observed) + len(missing)
    xx = np.empty((*sum_xx.shape[:-2], d, d))
    crossed = coefficients @ sum_xx
    xx[..., observed[:, None], observed] = sum_xx
    xx[..., missing[:, None], observed] = crossed
    xx[..., observed[:, None], missing] = crossed.swapaxes(-1, -2)
    square = crossed @ coefficients.swapaxes(-1, -2) + added
    xx[..., missing[:, None], missing] = _symmetric(square)
    return xx


def _symmetric(matrices: Array) -> Array:
    return np.asarray((matrices + matrices.swapaxes(-1, -2)) / 2)


def _log_cholesky(matrices: Array) -> Array:
    """Cholesky factors as rows of numbers: logs of the diagonal, then the numbers below it."""
    lower = np.linalg.cholesky(matrices)
    below = np.tril_indices(matrices.shape[-1], -1)
    logs = np.log(np.einsum("kdd->kd", lower))
    return np.concatenate([np.sqrt(2) * logs, lower[:, below[0], below[1]]], axis=1)


def _from_log_cholesky(rows: Array, d: int) -> Array:
    lower, below, along = np.zeros((len(rows), d, d)), np.tril_indices(d, -1), np.arange(d)
    lower[:, along, along] = np.exp(rows[:, :d] / np.sqrt(2))
    lower[:, below[0], below[1]] = rows[:, d:]
    return lower


@np.errstate(all="ignore")
def _correlations(covariances: Array) -> Array:
    scale = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    return np.asarray(covariances / scale[..., :, None] / scale[..., None, :])


def _least_pivots(correlations: Array) -> Array:
    lower = np.linalg.cholesky(correlations)
    return np.asarray(np.diagonal(lower, axis1=-2, axis2=-1).min(axis=-1) ** 2)


def _pivot_or_none(correlation: Array) -> float:
    try:
        return float(_least_pivots(correlation))
    except np.linalg.LinAlgError:
        return 0.0
