"""Diagonal and spherical covariances: single variances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.covariance.factors import factor_variances, units_of, within_ratio
from gmm_dask.mixture.covariance.family import Array, CovarianceFamily, Indices


@dataclass(frozen=True, eq=False)
class Variances(CovarianceFamily):
    """What diagonal and spherical covariances have in common: features are independent."""

    @classmethod
    def of_precisions(cls, k: int, d: int, precisions: Array) -> Self:
        factors = 1.0 / factor_variances(precisions)
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(k, d, factors**-2.0, factors)

    @property
    def precisions(self) -> Array:
        return np.asarray(self.precisions_cholesky**2)

    @cached_property
    def core_factors(self) -> Array:
        k, d = self.n_components, self.n_features
        return np.broadcast_to(self.precisions_cholesky.reshape(k, -1), (k, d)).copy()

    def squared_distances(self, D: Array, j: int, work: Array, out: Array) -> None:
        np.multiply(D, self.precisions_cholesky[j], out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    def regressions(self, observed: Indices, missing: Indices) -> Array:
        return np.zeros((self.n_components, len(missing), len(observed)))

    def _factored(self) -> Array:
        return factor_variances(self.covariances)


@dataclass(frozen=True, eq=False)
class Diag(Variances):
    """Each component has its own variances, (k, d)."""

    name = "diag"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k * d

    @classmethod
    def diagonal(cls, k: int, variances: Array) -> Self:
        return cls(k, len(variances), np.broadcast_to(variances, (k, len(variances))))

    @property
    def variances(self) -> Array:
        return self.covariances

    def add_scatter(self, scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        # Times sqrt(r) first: a far row of share 0 would overflow and give 0 times infinity.
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[j] += np.einsum("nd,nd->d", work, work)

    def scatter_of(self, weights: Array, V: Array) -> Array:
        return np.asarray(weights[:, None] * V**2)

    def expected_scatter(self, rows: Array) -> Array:
        return rows[:, None] * self.covariances

    def averaged(self, scatter: Array, rows: Array, extra: float = 0.0) -> Self:
        counted = rows + extra
        return self._with(scatter / np.where(counted == 0, 1.0, counted)[:, None])

    def limited(self, ratio: float, rows: Array, variances: Array) -> Self:
        squares = units_of(variances) ** 2
        scaled = self.covariances / squares
        held = within_ratio(scaled, rows, ratio)
        return self if held is scaled else self._with(held * squares)

    def prior_rows(self, degrees_of_freedom: float) -> float:
        return degrees_of_freedom + 2

    def marginal(self, observed: Indices) -> Self:
        return type(self)(self.n_components, len(observed), self.covariances[:, observed])

    def completed(
        self, sums: tuple[Array, Array, Array], observed: Indices, missing: Indices
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = sums
        x, xx = np.zeros_like(self.covariances), sum_resp[:, None] * self.covariances
        x[:, observed], xx[:, observed] = sum_x, sum_xx
        return x, xx

    def encoded(self, other: Self) -> Array:
        return np.asarray(np.log(other.covariances * self.precisions_cholesky**2) / np.sqrt(2))

    def decoded(self, numbers: Array) -> Self:
        return self._with(np.exp(np.sqrt(2) * numbers) / self.precisions_cholesky**2)


@dataclass(frozen=True, eq=False)
class Spherical(Variances):
    """Each component has one variance for all features, (k,)."""

    name = "spherical"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k,)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k

    @classmethod
    def diagonal(cls, k: int, variances: Array) -> Self:
        return cls(k, len(variances), np.full(k, variances.mean()))

    @property
    def variances(self) -> Array:
        return np.broadcast_to(self.covariances[:, None], (self.n_components, self.n_features))

    def log_determinants(self) -> Array:
        return np.asarray(self.n_features * np.log(self.precisions_cholesky))

    def add_scatter(self, scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[j] += np.einsum("nd,nd->", work, work)

    def scatter_of(self, weights: Array, V: Array) -> Array:
        return np.asarray(weights * np.einsum("kd,kd->k", V, V))

    def expected_scatter(self, rows: Array) -> Array:
        return self.n_features * rows * self.covariances

    def kept(self, sums: Array) -> Array:
        return np.asarray(sums.sum(axis=1))

    def averaged(self, scatter: Array, rows: Array, extra: float = 0.0) -> Self:
        counted = rows + extra
        return self._with(scatter / np.where(counted == 0, 1.0, counted) / self.n_features)

    def limited(self, ratio: float, rows: Array, variances: Array) -> Self:
        return self._with(within_ratio(self.covariances[:, None], rows, ratio)[:, 0])

    def prior_rows(self, degrees_of_freedom: float) -> float:
        return (degrees_of_freedom + 2) / self.n_features

    def least_shared(self, values: Array, alive: npt.NDArray[np.bool_]) -> Array:
        return np.broadcast_to(values.min(axis=1, keepdims=True), values.shape).copy()

    def marginal(self, observed: Indices) -> Self:
        return type(self)(self.n_components, len(observed), self.covariances)

    def completed(
        self, sums: tuple[Array, Array, Array], observed: Indices, missing: Indices
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = sums
        x = np.zeros((self.n_components, self.n_features))
        x[:, observed] = sum_x
        return x, sum_xx + len(missing) * sum_resp * self.covariances

    def encoded(self, other: Self) -> Array:
        ratios = other.covariances * self.precisions_cholesky**2
        return np.asarray(np.log(ratios) * np.sqrt(self.n_features / 2))[:, None]

    def decoded(self, numbers: Array) -> Self:
        spreads = np.exp(numbers[:, 0] / np.sqrt(self.n_features / 2))
        return self._with(spreads / self.precisions_cholesky**2)
