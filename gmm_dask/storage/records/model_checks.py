"""Whether stored covariances and factors are those of a density, and of the same one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.mixture import Parameters

SYMMETRY_SLACK = 1e-8  # of a correlation
FACTOR_SLACK = 1e-9  # of U^T covariance U about the identity, beside what rounding explains

Array = npt.NDArray[np.float64]


def covariances_problem(parameters: Parameters) -> str | None:
    """Why the covariances are not symmetric and positive definite; None where they are."""
    with np.errstate(all="ignore"):
        try:
            factors = parameters.family.factor_covariances(parameters.covariances)
        except SingularCovarianceError as error:
            return f"has no density: {error}"
        if not np.isfinite(factors).all():
            return "has no density: its inverse is beyond float64"
        if not _is_dense(parameters):
            return None
        for j, (correlation, _) in enumerate(_scaled(parameters)):
            if not np.abs(correlation - correlation.T).max() <= SYMMETRY_SLACK:
                return f"is not symmetric in matrix {j}"
    return None


def factors_problem(parameters: Parameters) -> str | None:
    """Why the factors U are not those of the covariances, U U^T = covariance^-1; None if right."""
    with np.errstate(all="ignore"):
        if not _is_dense(parameters):
            unit = parameters.precisions_cholesky * np.sqrt(parameters.covariances)
            fits = np.abs(unit - 1).max() <= FACTOR_SLACK
            return None if fits else "is not 1 / standard deviation of the covariances"
        for j, (correlation, factor) in enumerate(_scaled(parameters)):
            if np.tril(factor, -1).any() or not (np.diagonal(factor) > 0).all():
                return f"is not upper triangular with a positive diagonal in matrix {j}"
            rounding = 64 * len(factor) * np.finfo(float).eps * np.linalg.cond(correlation)
            error = np.abs(factor.T @ correlation @ factor - np.eye(len(factor))).max()
            if not error <= FACTOR_SLACK + rounding:
                return f"is not the factor of the inverse covariance in matrix {j}"
    return None


def _is_dense(parameters: Parameters) -> bool:
    return parameters.covariance_type in ("full", "tied")


def _scaled(parameters: Parameters) -> list[tuple[Array, Array]]:
    """Correlation and factor of each matrix, in units of the standard deviations."""
    d = parameters.n_features
    covariances = parameters.covariances.reshape(-1, d, d)
    factors = parameters.precisions_cholesky.reshape(-1, d, d)
    scales = np.sqrt(np.einsum("kdd->kd", covariances))
    correlations = covariances / scales[:, :, None] / scales[:, None, :]
    return list(zip(correlations, factors * scales[:, :, None], strict=True))
