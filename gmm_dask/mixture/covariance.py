"""The four covariance families: one class of static formulas each, chosen once by name.

Notation of the shape comments: n rows of a tile, d features, k components. `D` is X - m with m a
component's mean. A factor U satisfies U U^T = covariance^-1, so |D U|^2 is the squared
Mahalanobis distance (Bishop, Pattern Recognition and Machine Learning, 2.3; the four families as
in scikit-learn's user guide, "Gaussian mixture models").
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError, SingularCovarianceError

Array = npt.NDArray[np.float64]
CovarianceType = Literal["full", "tied", "diag", "spherical"]


class CovarianceFamily(Protocol):
    """The formulas that differ between covariance types; never instantiated."""

    name: ClassVar[str]
    per_component: ClassVar[bool] = True

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        """Shape of covariances, factors and scatter sums."""

    @staticmethod
    def n_free(k: int, d: int) -> int:
        """Free parameters in the covariances."""

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        """Factors U of the precisions; raises SingularCovarianceError."""

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        """Factors U of given precisions; raises SingularCovarianceError."""

    @staticmethod
    def precisions_of(factors: Array) -> Array:
        """U U^T, in the family's shape."""

    @staticmethod
    def covariances_of(factors: Array) -> Array:
        """(U U^T)^-1, in the family's shape."""

    @staticmethod
    def log_determinants(factors: Array, k: int, d: int) -> Array:
        """Log-determinant of each component's U, (k,): half that of its precision."""

    @staticmethod
    def squared_distances(D: Array, factors: Array, j: int, work: Array, out: Array) -> None:
        """Write |D U_j|^2 to out (n,); work is (n, d) scratch."""

    @staticmethod
    def add_scatter(scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        """Add sum r D D^T of component j to scatter in place; resp (n,), work (n, d) scratch."""

    @staticmethod
    def covariances(scatter: Array, sum_resp: Array, delta: Array) -> Array:
        """Covariances about the new means, from sums about the old: S / N - delta delta^T."""

    @staticmethod
    def regularised(covariances: Array, reg_covar: float) -> Array:
        """Covariances with reg_covar added to every variance (scikit-learn's meaning)."""
        return covariances + reg_covar

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        """Covariances as (k, d, d)."""


class Full(CovarianceFamily):
    """Each component has its own covariance matrix, (k, d, d)."""

    name = "full"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k, d, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k * d * (d + 1) // 2

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return np.stack([_factor_covariance(c, j) for j, c in enumerate(covariances)])

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        return np.stack([_factor_precision(p, j) for j, p in enumerate(precisions)])

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
    def covariances(scatter: Array, sum_resp: Array, delta: Array) -> Array:
        return scatter / sum_resp[:, None, None] - delta[:, :, None] * delta[:, None, :]

    @staticmethod
    def regularised(covariances: Array, reg_covar: float) -> Array:
        return covariances + reg_covar * np.eye(covariances.shape[-1])

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return covariances


class Tied(CovarianceFamily):
    """All components share one covariance matrix, (d, d)."""

    name = "tied"
    per_component = False

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (d, d)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return d * (d + 1) // 2

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return _factor_covariance(covariances, 0)

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        return _factor_precision(precisions, 0)

    precisions_of = Full.precisions_of
    covariances_of = Full.covariances_of
    regularised = Full.regularised

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
    def covariances(scatter: Array, sum_resp: Array, delta: Array) -> Array:
        between = (delta * sum_resp[:, None]).T @ delta
        pooled = (scatter - between) / sum_resp.sum()
        return np.asarray((pooled + pooled.T) / 2)

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return np.broadcast_to(covariances, (k, d, d))


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
        return _factor_variances(covariances)

    @staticmethod
    def factor_precisions(precisions: Array) -> Array:
        return 1.0 / _factor_variances(precisions)

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
        np.multiply(D, D, out=work)
        scatter[j] += resp @ work

    @staticmethod
    def covariances(scatter: Array, sum_resp: Array, delta: Array) -> Array:
        # A variance is never negative; rounding may say so where all rows are equal.
        return np.maximum(scatter / sum_resp[:, None] - delta**2, 0.0)

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return covariances[:, :, None] * np.eye(d)


class Spherical(CovarianceFamily):
    """Each component has one variance for all features, (k,)."""

    name = "spherical"

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        return (k,)

    @staticmethod
    def n_free(k: int, d: int) -> int:
        return k

    @staticmethod
    def factor_covariances(covariances: Array) -> Array:
        return _factor_variances(covariances)

    factor_precisions = Diag.factor_precisions
    precisions_of = Diag.precisions_of
    covariances_of = Diag.covariances_of

    @staticmethod
    def log_determinants(factors: Array, k: int, d: int) -> Array:
        return np.asarray(d * np.log(factors))

    @staticmethod
    def squared_distances(D: Array, factors: Array, j: int, work: Array, out: Array) -> None:
        np.multiply(D, factors[j], out=work)
        np.einsum("nd,nd->n", work, work, out=out)

    @staticmethod
    def add_scatter(scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        scatter[j] += resp @ np.einsum("nd,nd->n", D, D)

    @staticmethod
    def covariances(scatter: Array, sum_resp: Array, delta: Array) -> Array:
        d = delta.shape[1]
        mean_square = scatter / sum_resp - np.einsum("kd,kd->k", delta, delta)
        return np.asarray(np.maximum(mean_square / d, 0.0))

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        return covariances[:, None, None] * np.eye(d)


COVARIANCE_FAMILIES: dict[str, type[CovarianceFamily]] = {
    cls.name: cls for cls in (Full, Tied, Diag, Spherical)
}


def family(covariance_type: str) -> type[CovarianceFamily]:
    """The family of that name; raises SettingsError for any other word."""
    try:
        return COVARIANCE_FAMILIES[covariance_type]
    except KeyError:
        known = ", ".join(COVARIANCE_FAMILIES)
        raise SettingsError(
            f"covariance_type is {covariance_type!r}; it must be one of {known}"
        ) from None


_REMEDY = "Try fewer components, a larger reg_covar, or leave out constant and duplicate columns."


def _factor_covariance(covariance: Array, j: int) -> Array:
    """U with U U^T = covariance^-1, upper triangular with a positive diagonal."""
    # Scaled to unit variances first: Cholesky's failure then means collinear, not badly scaled.
    scale = _scale(np.diagonal(covariance), j, "variance")
    correlation = covariance / scale[:, None] / scale[None, :]
    try:
        lower = np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        raise SingularCovarianceError(
            f"The covariance of component {j} is not positive definite: some of its columns are "
            f"linear combinations of others on the rows it holds. {_REMEDY}",
            j,
        ) from None
    return _inverse_triangular(lower).T / scale[:, None]


def _factor_precision(precision: Array, j: int) -> Array:
    """U with U U^T = precision, upper triangular with a positive diagonal."""
    scale = _scale(np.diagonal(precision), j, "precision")
    scaled = precision / scale[:, None] / scale[None, :]
    try:
        # Reversing rows and columns turns the lower factor of one into the upper of the other.
        reversed_lower = np.linalg.cholesky(scaled[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise SingularCovarianceError(
            f"The given precision of component {j} is not positive definite. "
            "Precisions must be symmetric with positive eigenvalues.",
            j,
        ) from None
    return np.ascontiguousarray(reversed_lower[::-1, ::-1]) * scale[:, None]


def _factor_variances(variances: Array) -> Array:
    """1 / standard deviation; every variance must be positive and finite."""
    for j, row in enumerate(np.atleast_1d(variances)):
        _scale(np.atleast_1d(row), j, "variance")
    return 1.0 / np.sqrt(variances)


def _scale(diagonal: Array, j: int, what: str) -> Array:
    bad = ~((diagonal > 0) & np.isfinite(diagonal))
    if bad.any():
        feature = int(np.argmax(bad))
        raise SingularCovarianceError(
            f"Component {j} has the {what} {diagonal[feature]} in feature {feature}: "
            f"it must be positive and finite. {_REMEDY}",
            j,
        )
    return np.asarray(np.sqrt(diagonal))


def _inverse_triangular(lower: npt.NDArray[Any]) -> Array:
    # LAPACK's general solver pivots a triangular matrix away; scipy's keeps the structure.
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(lower, np.eye(lower.shape[0]), lower=True))
