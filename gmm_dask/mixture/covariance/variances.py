"""Diagonal and spherical covariances: single variances."""

from __future__ import annotations

import numpy as np

from gmm_dask.mixture.covariance.family import Array, CovarianceFamily, Indices
from gmm_dask.mixture.factors import factor_variances


class Diag(CovarianceFamily):
    """Each component has its own variances, (k, d)."""

    name = "diag"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k * d

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return factor_variances(covariances)

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        return 1.0 / factor_variances(precisions)

    @staticmethod
    def precisions_of(factors: Array) -> Array:
        return factors**2

    @staticmethod
    def covariances_of(factors: Array) -> Array:
        return factors**-2.0

    @staticmethod
    def log_determinants(factors: Array, k: int, d: int) -> Array:
        return np.asarray(np.log(factors).sum(axis=1))

    @staticmethod
    def squared_distances(D: Array, factors: Array, j: int, work: Array, out: Array) -> None:
        np.multiply(D, factors[j], out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    @staticmethod
    def add_scatter(scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        # Times sqrt(r) first: a far row of share 0 would overflow and give 0 times infinity.
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[j] += np.einsum("nd,nd->d", work, work)

    @staticmethod
    def scatter_of(weights: Array, V: Array) -> Array:
        return np.asarray(weights[:, None] * V**2)

    @staticmethod
    def uncorrelated(squares: Array) -> Array:
        return squares

    @staticmethod
    def averaged(scatter: Array, rows: Array, extra: float, d: int) -> Array:
        return np.asarray(scatter / (rows + extra)[:, None])

    @staticmethod
    def of_variances(variances: Array) -> Array:
        return variances

    @staticmethod
    def prior_rows(degrees_of_freedom: float, d: int) -> float:
        return degrees_of_freedom + 2

    @staticmethod
    def marginal(covariances: Array, observed: Indices) -> Array:
        return covariances[:, observed]

    @staticmethod
    def completed(
        parts: tuple[Array, Array, Array],
        covariances: Array,
        factors: Array,
        patterns: tuple[Indices, Indices],
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = parts
        observed, _ = patterns
        x, xx = np.zeros_like(covariances), sum_resp[:, None] * covariances
        x[:, observed], xx[:, observed] = sum_x, sum_xx
        return x, xx

    @staticmethod
    def regressions(factors: Array, patterns: tuple[Indices, Indices], k: int) -> Array:
        return np.zeros((k, len(patterns[1]), len(patterns[0])))

    @staticmethod
    def variances(covariances: Array, k: int, d: int) -> Array:
        return covariances

    @staticmethod
    def expected_scatter(rows: Array, covariances: Array, d: int) -> Array:
        return rows[:, None] * covariances

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return covariances[:, :, None] * np.eye(d)

    @staticmethod
    def to_coordinates(covariances: Array, factors: Array, d: int) -> Array:
        return np.asarray(np.log(covariances * factors**2) / np.sqrt(2))

    @staticmethod
    def from_coordinates(coordinates: Array, factors: Array, d: int) -> Array:
        return np.asarray(np.exp(np.sqrt(2) * coordinates) / factors**2)


class Spherical(CovarianceFamily):
    """Each component has one variance for all features, (k,)."""

    name = "spherical"
    per_feature = False

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k,)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return factor_variances(covariances)

    factor_precisions = Diag.factor_precisions
    precisions_of = Diag.precisions_of
    covariances_of = Diag.covariances_of
    regressions = Diag.regressions

    @staticmethod
    def log_determinants(factors: Array, k: int, d: int) -> Array:
        return np.asarray(d * np.log(factors))

    @staticmethod
    def squared_distances(D: Array, factors: Array, j: int, work: Array, out: Array) -> None:
        np.multiply(D, factors[j], out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    @staticmethod
    def add_scatter(scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[j] += np.einsum("nd,nd->", work, work)

    @staticmethod
    def scatter_of(weights: Array, V: Array) -> Array:
        return np.asarray(weights * np.einsum("kd,kd->k", V, V))

    @staticmethod
    def uncorrelated(squares: Array) -> Array:
        return np.asarray(squares.sum(axis=1))

    @staticmethod
    def averaged(scatter: Array, rows: Array, extra: float, d: int) -> Array:
        return np.asarray(scatter / (rows + extra) / d)

    @staticmethod
    def of_variances(variances: Array) -> Array:
        return np.asarray(variances.mean())

    @staticmethod
    def prior_rows(degrees_of_freedom: float, d: int) -> float:
        return (degrees_of_freedom + 2) / d

    @staticmethod
    def marginal(covariances: Array, observed: Indices) -> Array:
        return covariances

    @staticmethod
    def completed(
        parts: tuple[Array, Array, Array],
        covariances: Array,
        factors: Array,
        patterns: tuple[Indices, Indices],
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = parts
        observed, missing = patterns
        x = np.zeros((len(sum_resp), len(observed) + len(missing)))
        x[:, observed] = sum_x
        return x, sum_xx + len(missing) * sum_resp * covariances

    @staticmethod
    def variances(covariances: Array, k: int, d: int) -> Array:
        return np.broadcast_to(covariances[:, None], (k, d))

    @staticmethod
    def expected_scatter(rows: Array, covariances: Array, d: int) -> Array:
        return d * rows * covariances

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return covariances[:, None, None] * np.eye(d)

    @staticmethod
    def to_coordinates(covariances: Array, factors: Array, d: int) -> Array:
        return np.asarray(np.log(covariances * factors**2) * np.sqrt(d / 2))[:, None]

    @staticmethod
    def from_coordinates(coordinates: Array, factors: Array, d: int) -> Array:
        return np.asarray(np.exp(coordinates[:, 0] / np.sqrt(d / 2)) / factors**2)
