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
    family : CovarianceFamily
        The covariances, which may be singular.
    alive : (k,) bool
        Components that hold rows; the others stayed where they were.
    """

    weights: Array
    means: Array
    family: CovarianceFamily
    alive: npt.NDArray[np.bool_]

    def without(self, components: Sequence[int]) -> Estimate:
        """The estimate without these components; the weights of the others sum to one again."""
        kept = np.setdiff1d(np.arange(len(self.weights)), components)
        weights = self.weights[kept]
        return Estimate(
            weights / weights.sum(), self.means[kept], self.family.take(kept), self.alive[kept]
        )

    def factored(self) -> Parameters:
        """The mixture; raises SingularCovarianceError where a covariance is singular."""
        return Parameters(self.weights, self.means, self.family)


@dataclass(frozen=True, eq=False)
class Parameters:
    """Weights, means and covariances of a mixture; arrays are read-only.

    Parameters
    ----------
    weights : (k,)
        Mixing proportions; they sum to one.
    means : (k, d)
        In the units of the data.
    family : CovarianceFamily
        The covariances, which the mixture has factors of.

    Raises
    ------
    SingularCovarianceError
        A covariance is not positive definite.
    """

    weights: Array
    means: Array
    family: CovarianceFamily

    def __post_init__(self) -> None:
        for name in ("weights", "means"):
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        k, d = self.family.n_components, self.family.n_features
        if self.weights.shape != (k,) or self.means.shape != (k, d):
            raise ValueError(
                f"{self.covariance_type} parameters of {k} components and {d} features take "
                f"weights of shape {(k,)} and means of shape {(k, d)}; got {self.weights.shape} "
                f"and {self.means.shape}"
            )
        _ = self.family.precisions_cholesky  # found now: what has no factors is no mixture

    @classmethod
    def from_arrays(
        cls,
        weights: npt.ArrayLike,
        means: npt.ArrayLike,
        covariances: npt.ArrayLike,
        precisions_cholesky: npt.ArrayLike,
        covariance_type: str,
    ) -> Parameters:
        """The mixture of stored arrays, bit for bit; their shapes are those of the family."""
        means = np.asarray(means, dtype=np.float64)
        k, d = means.shape
        arrays = np.asarray(covariances), np.asarray(precisions_cholesky)
        found = family(covariance_type)(k, d, *arrays)
        return cls(np.asarray(weights), means, found)

    @classmethod
    def from_covariances(
        cls,
        weights: npt.ArrayLike,
        means: npt.ArrayLike,
        covariances: npt.ArrayLike,
        covariance_type: str,
    ) -> Parameters:
        """Factor the covariances; raises SingularCovarianceError where that is impossible."""
        means = np.asarray(means, dtype=np.float64)
        k, d = means.shape
        found = family(covariance_type)(k, d, np.asarray(covariances))
        return cls(np.asarray(weights), means, found)

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
        means = np.asarray(means, dtype=np.float64)
        k, d = means.shape
        given = np.asarray(precisions, dtype=np.float64)
        found = family(covariance_type).of_precisions(k, d, given)
        if not np.isfinite(found.covariances).all():
            raise SingularCovarianceError(
                "A given precision is so small that its inverse, the covariance, is beyond float64."
                " Give larger precisions, or rescale the columns."
            )
        return cls(np.asarray(weights), means, found)

    @property
    def covariance_type(self) -> str:
        """The name of the family."""
        return self.family.name

    @property
    def covariances(self) -> Array:
        """(k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical."""
        return self.family.covariances

    @property
    def precisions_cholesky(self) -> Array:
        """The factors U of the precisions, U U^T = covariance^-1, in the shape of `covariances`.

        Upper triangular for full and tied, 1 / standard deviation for diag and spherical.
        """
        return self.family.precisions_cholesky

    @property
    def n_components(self) -> int:
        """Number of components, k."""
        return self.family.n_components

    @property
    def n_features(self) -> int:
        """Number of features, d."""
        return self.family.n_features

    @property
    def n_free_parameters(self) -> int:
        """Free parameters of the model, as the criteria count them."""
        return n_free_parameters(self.covariance_type, *self.means.shape)

    @property
    def precisions(self) -> Array:
        """Inverse covariances, in the shape of `covariances`."""
        return self.family.precisions

    def dense_factor(self, j: int) -> Array:
        """The factor U of component j as a matrix (d, d), whatever the type."""
        return self.family.dense_factor(j)

    def dense_covariances(self) -> Array:
        """Covariances of every component as (k, d, d), whatever the type."""
        return self.family.dense(self.covariances)

    def marginal(self, observed: npt.NDArray[np.intp]) -> Parameters:
        """The mixture of some of the features, in their order."""
        return Parameters(self.weights, self.means[:, observed], self.family.marginal(observed))

    def take(self, order: Sequence[int] | npt.NDArray[np.intp]) -> Parameters:
        """The same mixture with its components in another order."""
        order = np.asarray(order, dtype=np.intp)
        return Parameters(self.weights[order], self.means[order], self.family.take(order))

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self.weights, self.means, self.family)
