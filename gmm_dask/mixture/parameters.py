"""The state of a mixture: an immutable record of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.covariance.family import CovarianceFamily

Array = npt.NDArray[np.float64]


def mixture_sample(
    parameters: Parameters, n_samples: int, rng: np.random.Generator | np.random.RandomState
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Rows drawn from a mixture, (n_samples, d), in the order of their components (n_samples,)."""
    from scipy.linalg import solve_triangular

    counts = rng.multinomial(n_samples, parameters.weights)
    X = rng.standard_normal((n_samples, parameters.n_features))
    component = np.repeat(np.arange(parameters.n_components), counts)
    for j in map(int, np.flatnonzero(counts)):
        mine = component == j
        # U^-T z has the covariance (U U^T)^-1.
        drawn = solve_triangular(parameters.dense_factor(j), X[mine].T, trans="T")
        X[mine] = parameters.means[j] + drawn.T
    return X, component


def n_free_parameters(covariance_type: str, n_components: int, n_features: int) -> int:
    """Free parameters of a mixture, as the criteria count them."""
    of_covariances = family(covariance_type).n_free(n_components, n_features)
    return of_covariances + n_components * n_features + n_components - 1


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an M-step found, before anyone has looked whether it is a mixture.

    Parameters
    ----------
    weights : (k,)
    means : (k, d)
    covariances : (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical
        May be singular.
    covariance_type : {"full", "tied", "diag", "spherical"}
    alive : (k,) bool
        Components that hold rows; the others stayed where they were.
    """

    weights: Array
    means: Array
    covariances: Array
    covariance_type: str
    alive: npt.NDArray[np.bool_]

    def without(self, components: Sequence[int]) -> Estimate:
        """The estimate without these components; the weights of the others sum to one again."""
        kept = np.setdiff1d(np.arange(len(self.weights)), components)
        weights, covariances = self.weights[kept], self.covariances
        if family(self.covariance_type).per_component:
            covariances = covariances[kept]
        return Estimate(
            weights / weights.sum(),
            self.means[kept],
            covariances,
            self.covariance_type,
            self.alive[kept],
        )

    def factored(self) -> Parameters:
        """The mixture; raises SingularCovarianceError where a covariance is none."""
        return Parameters.from_covariances(
            self.weights, self.means, self.covariances, self.covariance_type
        )


@dataclass(frozen=True, eq=False)
class Parameters:
    """Weights, means and covariances of a mixture; arrays are read-only.

    Parameters
    ----------
    weights : (k,)
        Mixing proportions; they sum to one.
    means : (k, d)
        In the units of the data.
    covariances : (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical
    precisions_cholesky : same shape as covariances
        The factor U of the precision, U U^T = covariance^-1: upper triangular for full and tied,
        1 / standard deviation for diag and spherical.
    covariance_type : {"full", "tied", "diag", "spherical"}
    """

    weights: Array
    means: Array
    covariances: Array
    precisions_cholesky: Array
    covariance_type: str

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances", "precisions_cholesky"):
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        k, d = self.means.shape
        expected = self.family.shape(k, d)
        if (
            self.weights.shape != (k,)
            or self.covariances.shape != expected
            or self.precisions_cholesky.shape != expected
        ):
            raise ValueError(
                f"{self.covariance_type} parameters of {k} components and {d} features take "
                f"weights of shape {(k,)} and covariances of shape {expected}; got "
                f"{self.weights.shape}, {self.covariances.shape}, {self.precisions_cholesky.shape}"
            )

    @classmethod
    def from_covariances(
        cls,
        weights: npt.ArrayLike,
        means: npt.ArrayLike,
        covariances: npt.ArrayLike,
        covariance_type: str,
    ) -> Parameters:
        """Factor the covariances; raises SingularCovarianceError where that is impossible."""
        covariances = np.asarray(covariances, dtype=np.float64)
        factors = family(covariance_type).factor_covariances(covariances)
        return cls(np.asarray(weights), np.asarray(means), covariances, factors, covariance_type)

    @classmethod
    def from_precisions(
        cls,
        weights: npt.ArrayLike,
        means: npt.ArrayLike,
        precisions: npt.ArrayLike,
        covariance_type: str,
    ) -> Parameters:
        """Factor given precisions (scikit-learn's `precisions_init`).

        Raises
        ------
        SingularCovarianceError
            A precision is not positive definite, or its inverse is beyond float64.
        """
        covariance_family = family(covariance_type)
        factors = covariance_family.factor_precisions(np.asarray(precisions, dtype=np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            covariances = covariance_family.covariances_of(factors)
        if not np.isfinite(covariances).all():
            raise SingularCovarianceError(
                "A given precision is so small that its inverse, the covariance, is beyond float64."
                " Give larger precisions, or rescale the columns."
            )
        return cls(np.asarray(weights), np.asarray(means), covariances, factors, covariance_type)

    @property
    def family(self) -> type[CovarianceFamily]:
        """The formulas of this covariance type."""
        return family(self.covariance_type)

    @property
    def n_components(self) -> int:
        """Number of components, k."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features, d."""
        return int(self.means.shape[1])

    @property
    def n_free_parameters(self) -> int:
        """Free parameters of the model, as the criteria count them."""
        return n_free_parameters(self.covariance_type, *self.means.shape)

    @property
    def precisions(self) -> Array:
        """Inverse covariances, in the shape of `covariances`."""
        return self.family.precisions_of(self.precisions_cholesky)

    def dense_factor(self, j: int) -> Array:
        """The factor U of component j as a matrix (d, d), whatever the type."""
        factors = self.precisions_cholesky
        one = factors[j : j + 1] if self.family.per_component else factors
        return np.asarray(self.family.dense(one, 1, self.n_features)[0])

    def dense_covariances(self) -> Array:
        """Covariances of every component as (k, d, d), whatever the type."""
        return self.family.dense(self.covariances, self.n_components, self.n_features)

    def marginal(self, observed: npt.NDArray[np.intp]) -> Parameters:
        """The mixture of some of the features, in their order."""
        covariances = self.family.marginal(self.covariances, observed)
        return Parameters.from_covariances(
            self.weights, self.means[:, observed], covariances, self.covariance_type
        )

    def take(self, order: Sequence[int] | npt.NDArray[np.intp]) -> Parameters:
        """The same mixture with its components in another order."""
        order = np.asarray(order, dtype=np.intp)
        per_component = self.family.per_component
        return Parameters(
            self.weights[order],
            self.means[order],
            self.covariances[order] if per_component else self.covariances,
            self.precisions_cholesky[order] if per_component else self.precisions_cholesky,
            self.covariance_type,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (
            self.weights,
            self.means,
            self.covariances,
            self.precisions_cholesky,
            self.covariance_type,
        )
