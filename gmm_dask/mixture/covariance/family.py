"""The formulas that a covariance family must have.

Notation of the shape comments: n rows of a tile, d features, k components. `D` is X - m with m a
component's mean. A factor U satisfies U U^T = covariance^-1, so |D U|^2 is the squared
Mahalanobis distance (Bishop, Pattern Recognition and Machine Learning, 2.3; the four families as
in scikit-learn's user guide, "Gaussian mixture models").
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class CovarianceFamily(Protocol):
    """The formulas that differ between covariance types; never instantiated."""

    name: ClassVar[str]
    per_component: ClassVar[bool] = True
    per_feature: ClassVar[bool] = True
    correlated: ClassVar[bool] = False  # covariances are matrices, which can be singular

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
    def scatter_of(weights: Array, V: Array) -> Array:
        """Sum of w v v^T, one vector a component, in the shape of scatter; w (k,), V (k, d)."""

    @staticmethod
    def uncorrelated(squares: Array) -> Array:
        """Scatter of these sums of squares (k, d) without any correlation."""

    @staticmethod
    def averaged(scatter: Array, rows: Array, extra: float, d: int) -> Array:
        """Covariances from scatter of so many rows (k,), `extra` rows more for each covariance."""

    @staticmethod
    def of_variances(variances: Array) -> Array:
        """One covariance with these variances (d,) and no correlation, in the family's shape."""

    @staticmethod
    def prior_rows(degrees_of_freedom: float, d: int) -> float:
        """Rows that an inverse-Wishart (or inverse-gamma) prior of one covariance counts as."""

    @staticmethod
    def marginal(covariances: Array, observed: Indices) -> Array:
        """Covariances of some of the features."""

    @staticmethod
    def completed(
        parts: tuple[Array, Array, Array],
        covariances: Array,
        factors: Array,
        patterns: tuple[Indices, Indices],
    ) -> tuple[Array, Array]:
        """Sums over all features, expected given those over the observed ones.

        Parameters
        ----------
        parts : sum_resp (k,), sum_x (k, o), sum_xx of the o observed features
        covariances, factors : of all features
        patterns : indices of observed and of missing features
        """

    @staticmethod
    def expected_scatter(rows: Array, covariances: Array, d: int) -> Array:
        """Expected scatter of so many unseen rows of each component (k,)."""

    @staticmethod
    def regressions(factors: Array, patterns: tuple[Indices, Indices], k: int) -> Array:
        """Coefficients of the missing features on the observed ones, (k, missing, observed)."""

    @staticmethod
    def regularised(covariances: Array, reg_covar: float) -> Array:
        """Covariances with reg_covar added to every variance (scikit-learn's meaning)."""
        return covariances + reg_covar

    @staticmethod
    def variances(covariances: Array, k: int, d: int) -> Array:
        """Variance of each feature in each component, (k, d)."""

    @staticmethod
    def dense(covariances: Array, k: int, d: int) -> Array:
        """Covariances as (k, d, d)."""

    @staticmethod
    def to_coordinates(covariances: Array, factors: Array, d: int) -> Array:
        """Unconstrained numbers of each covariance, seen from the factors of a reference."""

    @staticmethod
    def from_coordinates(coordinates: Array, factors: Array, d: int) -> Array:
        """The covariances of such numbers."""
