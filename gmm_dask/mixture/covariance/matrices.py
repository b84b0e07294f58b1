"""Full and tied covariances: whole matrices."""

from __future__ import annotations

import numpy as np

from gmm_dask.mixture.covariance.family import Array, CovarianceFamily, Indices
from gmm_dask.mixture.factors import factor_covariances, factor_precision, not_completed


class Full(CovarianceFamily):
    """Each component has its own covariance matrix, (k, d, d)."""

    name = "full"
    correlated = True

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k, d, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k * d * (d + 1) // 2

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return factor_covariances(covariances)

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        return np.stack([factor_precision(p, j) for j, p in enumerate(precisions)])

    @staticmethod
    def precisions_of(factors: Array) -> Array:
        return factors @ factors.swapaxes(-1, -2)

    @staticmethod
    def covariances_of(factors: Array) -> Array:
        inverses = np.linalg.inv(factors)
        return inverses.swapaxes(-1, -2) @ inverses

    @staticmethod
    def log_determinants(factors: Array, k: int, d: int) -> Array:
        return np.asarray(np.log(np.einsum("kdd->kd", factors)).sum(axis=1))

    @staticmethod
    def squared_distances(D: Array, factors: Array, j: int, work: Array, out: Array) -> None:
        np.matmul(D, factors[j], out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    @staticmethod
    def add_scatter(scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        # One operand on both sides, so that BLAS returns an exactly symmetric product.
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[j] += work.T @ work

    @staticmethod
    def scatter_of(weights: Array, V: Array) -> Array:
        root = V * np.sqrt(weights)[:, None]
        return np.asarray(root[:, :, None] * root[:, None, :])

    @staticmethod
    def uncorrelated(squares: Array) -> Array:
        return np.asarray(squares[:, :, None] * np.eye(squares.shape[1]))

    @staticmethod
    def averaged(scatter: Array, rows: Array, extra: float, d: int) -> Array:
        return np.asarray(scatter / (rows + extra)[:, None, None])

    @staticmethod
    def of_variances(variances: Array) -> Array:
        return np.diag(variances)

    @staticmethod
    def prior_rows(degrees_of_freedom: float, d: int) -> float:
        return degrees_of_freedom + d + 1

    @staticmethod
    def marginal(covariances: Array, observed: Indices) -> Array:
        return covariances[..., observed[:, None], observed]

    @staticmethod
    def completed(
        parts: tuple[Array, Array, Array],
        covariances: Array,
        factors: Array,
        patterns: tuple[Indices, Indices],
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = parts
        observed, missing = patterns
        coefficients, residual = _regression(factors, observed, missing)
        x = np.empty((len(sum_resp), len(observed) + len(missing)))
        x[:, observed] = sum_x
        x[:, missing] = np.einsum("kmo,ko->km", coefficients, sum_x)
        added = sum_resp[:, None, None] * residual
        return x, _completed_scatter(sum_xx, coefficients, added, observed, missing)

    @staticmethod
    def regressions(factors: Array, patterns: tuple[Indices, Indices], k: int) -> Array:
        return _regression(factors, *patterns)[0]

    @staticmethod
    def regularised(covariances: Array, reg_covar: float) -> Array:
        return covariances + reg_covar * np.eye(covariances.shape[-1])

    @staticmethod
    def variances(covariances: Array, k: int, d: int) -> Array:
        return np.asarray(np.einsum("kdd->kd", covariances))

    @staticmethod
    def expected_scatter(rows: Array, covariances: Array, d: int) -> Array:
        return rows[:, None, None] * covariances

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return covariances

    @staticmethod
    def to_coordinates(covariances: Array, factors: Array, d: int) -> Array:
        return _log_cholesky(factors.swapaxes(-1, -2) @ covariances @ factors)

    @staticmethod
    def from_coordinates(coordinates: Array, factors: Array, d: int) -> Array:
        root = np.linalg.solve(factors.swapaxes(-1, -2), _from_log_cholesky(coordinates, d))
        return _symmetric(root @ root.swapaxes(-1, -2))


class Tied(CovarianceFamily):
    """All components share one covariance matrix, (d, d)."""

    name = "tied"
    per_component = False
    correlated = True

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (d, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return d * (d + 1) // 2

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return np.asarray(factor_covariances(covariances[None])[0])

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        return factor_precision(precisions, 0)

    precisions_of = Full.precisions_of
    covariances_of = Full.covariances_of
    regularised = Full.regularised
    of_variances = Full.of_variances
    prior_rows = Full.prior_rows
    marginal = Full.marginal

    @staticmethod
    def log_determinants(factors: Array, k: int, d: int) -> Array:
        return np.full(k, np.log(np.diagonal(factors)).sum())

    @staticmethod
    def squared_distances(D: Array, factors: Array, j: int, work: Array, out: Array) -> None:
        np.matmul(D, factors, out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    @staticmethod
    def add_scatter(scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter += work.T @ work

    @staticmethod
    def scatter_of(weights: Array, V: Array) -> Array:
        root = V * np.sqrt(weights)[:, None]
        return np.asarray(root.T @ root)

    @staticmethod
    def uncorrelated(squares: Array) -> Array:
        return np.diag(squares.sum(axis=0))

    @staticmethod
    def averaged(scatter: Array, rows: Array, extra: float, d: int) -> Array:
        return np.asarray(scatter / (rows.sum() + extra))

    @staticmethod
    def completed(
        parts: tuple[Array, Array, Array],
        covariances: Array,
        factors: Array,
        patterns: tuple[Indices, Indices],
    ) -> tuple[Array, Array]:
        sum_resp, sum_x, sum_xx = parts
        observed, missing = patterns
        coefficients, residual = _regression(factors, observed, missing)
        x = np.empty((len(sum_resp), len(observed) + len(missing)))
        x[:, observed], x[:, missing] = sum_x, sum_x @ coefficients.T
        added = sum_resp.sum() * residual
        return x, _completed_scatter(sum_xx, coefficients, added, observed, missing)

    @staticmethod
    def regressions(factors: Array, patterns: tuple[Indices, Indices], k: int) -> Array:
        coefficients, _ = _regression(factors, *patterns)
        return np.broadcast_to(coefficients, (k, *coefficients.shape))

    @staticmethod
    def variances(covariances: Array, k: int, d: int) -> Array:
        return np.broadcast_to(np.diagonal(covariances), (k, d))

    @staticmethod
    def expected_scatter(rows: Array, covariances: Array, d: int) -> Array:
        return np.asarray(rows.sum() * covariances)

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return np.broadcast_to(covariances, (k, d, d))

    @staticmethod
    def to_coordinates(covariances: Array, factors: Array, d: int) -> Array:
        return Full.to_coordinates(covariances[None], factors[None], d)

    @staticmethod
    def from_coordinates(coordinates: Array, factors: Array, d: int) -> Array:
        return np.asarray(Full.from_coordinates(coordinates, factors[None], d)[0])


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
    """Cholesky factors as rows of plain numbers: logs of the diagonal, then what is below it."""
    lower = np.linalg.cholesky(matrices)
    below = np.tril_indices(matrices.shape[-1], -1)
    logs = np.log(np.einsum("kdd->kd", lower))
    return np.concatenate([np.sqrt(2) * logs, lower[:, below[0], below[1]]], axis=1)


def _from_log_cholesky(rows: Array, d: int) -> Array:
    lower, below, along = np.zeros((len(rows), d, d)), np.tril_indices(d, -1), np.arange(d)
    lower[:, along, along] = np.exp(rows[:, :d] / np.sqrt(2))
    lower[:, below[0], below[1]] = rows[:, d:]
    return lower
