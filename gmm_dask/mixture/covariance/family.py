"""What a covariance family is: a record of its arrays and what EM asks of it.

Notation of the shape comments: n rows of a tile, d features, k components. `D` is X - m with m a
component's mean. A factor U satisfies U U^T = covariance^-1, so |D U|^2 is the squared
Mahalanobis distance (Bishop, Pattern Recognition and Machine Learning, 2.3; the four families as
in scikit-learn's user guide, "Gaussian mixture models").

Parameters, factors and sums have shapes of their own: a family says what its covariances look
like (`shape`), what their factors are, and what is kept of a scatter matrix (`sum_shape`).

What is asked of a family stands in groups, by who asks: the record itself (models, the estimator,
pictures), the E-step (`steps`, the core), sums and M-step (`estimate`), the guard of components
(`find_faults`, the M-step's policies), priors, missing values, extrapolation, and model files.
Abstract methods are those that a family must have; others are derived from them, and a family has
its own where it knows a shorter way or where its covariances are shared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError, SingularCovarianceError
from gmm_dask.mixture.covariance.factors import asymmetric, factor_covariances

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = npt.NDArray[Any]

FACTOR_SLACK = 1e-9  # of a stored factor, beside what rounding explains


@dataclass(frozen=True, eq=False)
class CovarianceFamily(ABC):
    """The covariances of all components of a mixture; they may be singular until they are factored.

    Parameters
    ----------
    n_components, n_features : int
    covariances : (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical, (k, d, q + 1) low rank
        Read-only.
    known_factors : array, optional
        The factors, where they are known already.
    """

    name: ClassVar[str]
    precisions_are: ClassVar[str] = "positive"  # those that a start may be given by

    n_components: int
    n_features: int
    covariances: Array
    known_factors: Array | None = None

    def __post_init__(self) -> None:
        expected = self.shape(self.n_components, self.n_features)
        for name in ("covariances", "known_factors"):
            value = getattr(self, name)
            if value is None:
                continue
            array = np.array(value, dtype=np.float64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
            if array.shape != expected:
                raise ValueError(
                    f"{self.name} covariances of {self.n_components} components and "
                    f"{self.n_features} features have the shape {expected}; got {array.shape}"
                )

    # The record: its shapes, its covariances, and other forms of them

    @staticmethod
    @abstractmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        """Shape of covariances, of precisions and of their factors."""

    @staticmethod
    @abstractmethod
    def n_free(k: int, d: int) -> int:
        """Free parameters in the covariances."""

    @classmethod
    @abstractmethod
    def diagonal(cls, k: int, variances: Array) -> Self:
        """Covariances of k components with these variances (d,) and no correlation."""

    @classmethod
    def of_start(cls, k: int, d: int) -> CovarianceFamily:
        """The family in which the scatter of a start is summed."""
        return cls.diagonal(k, np.ones(d))

    @classmethod
    def from_start(cls, found: CovarianceFamily) -> CovarianceFamily:
        """The covariances of a start, from those that the family of `of_start` has found."""
        return found

    @classmethod
    def of_precisions(cls, k: int, d: int, precisions: Array) -> Self:
        """The family of given precisions.

        Raises
        ------
        SingularCovarianceError
            They are not what `precisions_are` says.
        SettingsError
            The family cannot be found from precisions.
        """
        raise SettingsError(
            f"'{cls.name} precision' should be left out: the family starts from weights and means, "
            "and finds its covariances from these"
        )

    @cached_property
    def precisions_cholesky(self) -> Array:
        """Factors U of the precisions, in the shape of the covariances.

        Raises
        ------
        SingularCovarianceError
            A covariance is not positive definite.
        """
        if self.known_factors is not None:
            return self.known_factors
        factors = np.array(self._factored(), order="C")
        factors.flags.writeable = False
        return factors

    @property
    @abstractmethod
    def precisions(self) -> Array:
        """U U^T, in the shape of the covariances."""

    @property
    def variances(self) -> Array:
        """Variance of each feature in each component, (k, d)."""
        return np.asarray(np.einsum("kdd->kd", self.dense()))

    @property
    def matrices(self) -> Array | None:
        """The different covariance matrices, (c, d, d); None where features are independent."""
        return None

    def dense(self) -> Array:
        """The covariances of all components as matrices, (k, d, d)."""
        shape = (self.n_components, self.n_features, self.n_features)
        if self.matrices is not None:
            return np.broadcast_to(self.matrices, shape)
        return self.variances[:, :, None] * np.eye(self.n_features)

    @property
    def loadings(self) -> Array | None:
        """Loadings of the factors that tie features together, (k, d, q); None without factors.

        Rows with missing values then go through groups that have the same values missing.
        """
        return None

    @cached_property
    def core_factors(self) -> Array:
        """Factors as the core takes them: (c, d, d), c = 1 where shared, or (k, d) of 1 / std."""
        return factor_covariances(self.dense())

    @property
    def owners(self) -> Sequence[int | None]:
        """For each different covariance the component that has it; None where all share it."""
        return range(self.n_components)

    # The E-step

    def log_determinants(self) -> Array:
        """Log-determinant of each component's U, (k,): half that of its precision."""
        factors = self.core_factors
        diagonals = factors if factors.ndim == 2 else np.einsum("cdd->cd", factors)
        return np.broadcast_to(np.log(diagonals).sum(axis=1), (self.n_components,))

    @abstractmethod
    def squared_distances(self, D: Array, j: int, work: Array, out: Array) -> None:
        """Write |D U_j|^2 to out (n,); work is (n, d) scratch."""

    def measure(self, X: Rows, means: Array, D: Array, work: Array, out: Array) -> None:
        """Write |(x - m_j) U_j|^2 of rows X (n, d) to out (n, k); D and work are (n, d) scratch."""
        squares = np.empty(len(X))
        for j, mean in enumerate(means):
            self.squared_distances(np.subtract(X, mean, out=D), j, work, squares)
            out[:, j] = squares

    # Sums: what the family keeps of sum r v v^T

    @property
    def sum_shape(self) -> tuple[int, ...]:
        """Shape of scatter sums."""
        return self.shape(self.n_components, self.n_features)

    @abstractmethod
    def add_scatter(self, scatter: Array, j: int, resp: Array, D: Array, work: Array) -> None:
        """Add sum r D D^T of component j to scatter in place; resp (n,), work (n, d) scratch."""

    def add_sums(
        self, sums: tuple[Array, Array], X: Rows, means: Array, resp: Array, D: Array, work: Array
    ) -> None:
        """Add sum r (x - m_j), and the scatter, of rows X (n, d) in place; resp (n, k)."""
        sum_x, scatter = sums
        for j, mean in enumerate(means):
            np.subtract(X, mean, out=D)
            resp_j = np.ascontiguousarray(resp[:, j])
            sum_x[j] += resp_j @ D
            self.add_scatter(scatter, j, resp_j, D, work)

    def scatter_of(self, weights: Array, V: Array) -> Array:
        """Sum of w v v^T, one vector a component, in the shape of scatter; w (k,), V (k, d)."""
        scatter, work = np.zeros(self.sum_shape), np.empty((1, self.n_features))
        for j in range(self.n_components):
            self.add_scatter(scatter, j, weights[j : j + 1], V[j : j + 1], work)
        return scatter

    def uncorrelated(self, squares: Array) -> Array:
        """Scatter of these sums of squares (k, d) without any correlation."""
        return self.kept(squares)

    @abstractmethod
    def expected_scatter(self, rows: Array) -> Array:
        """Expected scatter of so many unseen rows of each component (k,)."""

    def kept(self, sums: Array) -> Array:
        """Scatter in the family's shape, of matrices (k, d, d) or sums of squares (k, d)."""
        return sums

    # The M-step

    @abstractmethod
    def averaged(self, scatter: Array, rows: Array, extra: float = 0.0) -> Self:
        """Covariances from scatter of so many rows (k,), `extra` rows more for each covariance.

        Scatter of no rows at all is divided by one.
        """

    def averaged_variances(self, squares: Array, rows: Array, extra: float = 0.0) -> Array:
        """What sums of squares (k, d) without any correlation add to the covariances, averaged."""
        return self.averaged(self.uncorrelated(squares), rows, extra).covariances

    def one_of_variances(self, variances: Array) -> Array:
        """One covariance with these variances (d,) and no correlation, as `plus` takes it."""
        return np.asarray(self.diagonal(1, variances).covariances[0])

    # Priors

    def prior_rows(self, degrees_of_freedom: float) -> float:
        """Rows that an inverse-Wishart (or inverse-gamma) prior of one covariance counts as."""
        return degrees_of_freedom + self.n_features + 1

    def prior_scatter(self, variances: Array) -> Array:
        """Scatter of an inverse-Wishart prior whose scale matrix has this diagonal (d,)."""
        return self.one_of_variances(variances)

    def trace_with(self, variances: Array) -> float:
        """Sum over all covariances of the trace of diag(variances) times the precision."""
        return float((self.one_of_variances(variances) * self.precisions).sum())

    # Other covariances: regularised, limited, of a component that starts anew or is gone

    def plus(self, added: Array | float) -> Self:
        """With something added to the covariances, in their shape or that of one of them."""
        return self._with(self.covariances + added)

    def limited(self, ratio: float, rows: Array, variances: Array) -> Self:
        """The covariances of greatest likelihood whose eigenvalues are within a ratio.

        The largest eigenvalue of all components is at most `ratio`, of 1 or more, times the least
        one, on columns scaled to unit variances; where a component has one variance, in the data's
        units. `rows` (k,) are behind each covariance, in any unit; the data have these `variances`.

        Raises
        ------
        SettingsError
            The family has no such solution in closed form.
        """
        raise SettingsError(
            "eigenvalue_ratio is defined for full, tied, diag and spherical covariances, not for "
            f"{self.name}. Leave it out, or choose one of these."
        )

    def replaced(self, components: npt.NDArray[Any] | Sequence[int], other: Self) -> Self:
        """With the covariances of another mixture, or of its only component, at some components.

        A covariance that all components share stays as it is.
        """
        covariances = self.covariances.copy()
        covariances[components] = other.covariances
        return self._with(covariances)

    def average(self, shares: Array) -> Self:
        """The average of all covariances with these shares (k,), of one component."""
        average = np.tensordot(shares, self.covariances, axes=1)
        return replace(self, n_components=1, covariances=average[None], known_factors=None)

    def take(self, order: Sequence[int] | Indices) -> Self:
        """The covariances of some components, in their order."""
        order = np.asarray(order, dtype=np.intp)
        factors = self._known()
        return replace(
            self,
            n_components=len(order),
            covariances=self.covariances[order],
            known_factors=None if factors is None else factors[order],
        )

    # Whether each covariance is one of a density

    def least_shared(self, values: Array, alive: npt.NDArray[np.bool_]) -> Array:
        """The least of values (k, d) over the variances that are one number, (c, d)."""
        return values

    def least_pivots(self) -> Array:
        """Least share of a feature's variance that others leave unexplained, (c,).

        One for each different covariance: 1 where features are independent, 0 where a variance is.
        """
        return np.ones(len(self.owners))

    def dependent_features(self, i: int) -> tuple[int, ...]:
        """Features that follow from each other under the i-th different covariance."""
        return ()

    # Missing values

    @abstractmethod
    def marginal(self, observed: Indices) -> Self:
        """Covariances of some of the features."""

    @abstractmethod
    def completed(
        self, sums: tuple[Array, Array, Array], observed: Indices, missing: Indices
    ) -> tuple[Array, Array]:
        """Sums over all features, expected given those over the observed ones.

        Parameters
        ----------
        sums : sum_resp (k,), sum_x (k, o), sum_xx of the o observed features
        observed, missing : indices of features
        """

    @abstractmethod
    def regressions(self, observed: Indices, missing: Indices) -> Array:
        """Coefficients of the missing features on the observed ones, (k, missing, observed)."""

    # Extrapolation

    @abstractmethod
    def encoded(self, other: Self) -> Array:
        """Another mixture's covariances as unconstrained numbers about these, (c, numbers)."""

    @abstractmethod
    def decoded(self, numbers: Array) -> Self:
        """The covariances of such numbers."""

    # What is stored

    def factors_problem(self) -> str | None:
        """Why the factors are not those of the covariances; None where they are."""
        with np.errstate(all="ignore"):
            found = self._with(self.covariances).precisions_cholesky
            # Of loadings some are next to nothing: their error is that of the largest ones.
            scale = np.abs(found) if found.ndim < 3 else np.abs(found).max(axis=1, keepdims=True)
            fits = (np.abs(self.precisions_cholesky - found) <= FACTOR_SLACK * scale).all()
        return None if fits else "is not the factor of the inverse covariances"

    def covariances_problem(self) -> str | None:
        """Why the covariances are not those of a density; None where they are."""
        with np.errstate(all="ignore"):
            try:
                factors = self._with(self.covariances).precisions_cholesky
            except SingularCovarianceError as error:
                return f"has no density: {error}"
        if not np.isfinite(factors).all():
            return "has no density: its inverse is beyond float64"
        if self.matrices is not None and (j := asymmetric(self.matrices)) is not None:
            return f"is not symmetric in matrix {j}"
        return None

    @abstractmethod
    def _factored(self) -> Array:
        """The factors of the covariances."""

    def _with(self, covariances: Array) -> Self:
        return replace(self, covariances=covariances, known_factors=None)

    def _known(self) -> Array | None:
        """The factors, where they are known or have been found."""
        found: Array | None = self.__dict__.get("precisions_cholesky", self.known_factors)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.n_components, self.n_features, self.covariances, self._known())
