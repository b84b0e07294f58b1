"""The state of a mixture: an immutable record of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.covariance.family import CovarianceFamily

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

NOISE_LABEL = -1  # of a row that is noise most probably
FENCE = 2.0  # interquartile ranges beyond the quartiles, past which values are outliers


def mixture_sample(
    parameters: Parameters, n_samples: int, rng: np.random.Generator | np.random.RandomState
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Rows drawn from a mixture, (n_samples, d), in the order of their components (n_samples,).

    Rows of noise come first, of the component -1.
    """
    from scipy.linalg import solve_triangular

    noise = parameters.noise
    if noise is not None and (n_noise := int(rng.binomial(n_samples, noise.share))):
        drawn, plain = noise.sample(n_noise, rng), replace(parameters, noise=None)
        X, component = mixture_sample(plain, n_samples - n_noise, rng)
        return np.vstack([drawn, X]), np.concatenate([np.full(n_noise, NOISE_LABEL), component])
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
class Noise:
    """Rows that belong to no component: their share, and the box that they are uniform over.

    A component of constant density beside the Gaussians, as in mclust (Banfield and Raftery 1993,
    Biometrics 49). A row that is noise with probability u counts for the Gaussians as a row of
    weight 1 - u, so that no covariance family and no kernel knows of it.

    Outside of the box the density is the same, so that gross outliers are noise however far they
    are, and neither they nor the size of the data say how much noise there is inside.

    Parameters
    ----------
    share : float
        Share of the rows that are noise; the weights of the Gaussians are shares of the other rows.
    lower, upper : (d,)
        Edges of the box, in units of the data.
    """

    share: float
    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", float(self.share))
        for name in ("lower", "upper"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def over(cls, X: Rows, weight: Array | None, share: float, reg_covar: float) -> Noise:
        """Noise over the box of rows (m, d), of which NaN is a missing value.

        The box of a column reaches from the least to the largest value inside of fences beyond its
        quartiles (Tukey 1977, Exploratory Data Analysis), between those of outliers, which cut the
        tails of a Gaussian, and those of values far out. It is as wide at least as a Gaussian of
        variance `reg_covar`.
        """
        edges = np.array([_edges(X[:, j], weight) for j in range(X.shape[1])])
        least = np.sqrt(12 * reg_covar) + np.finfo(np.float64).tiny ** 0.5
        lacking = np.maximum(least - (edges[:, 1] - edges[:, 0]), 0.0) / 2
        return cls(share, edges[:, 0] - lacking, edges[:, 1] + lacking)

    def with_share(self, share: float) -> Noise:
        """The same noise of another share."""
        return replace(self, share=min(max(share, 0.0), 1.0))

    def take(self, features: npt.NDArray[np.intp]) -> Noise:
        """The noise of some of the features."""
        return Noise(self.share, self.lower[features], self.upper[features])

    def log_shares(self, X: Rows, log_density: Array) -> tuple[Array, Array]:
        """Logs of the densities of noise and of Gaussians at each row, times their shares, (n,).

        Parameters
        ----------
        X : (n, d)
            NaN is a missing value, which says nothing of noise either.
        log_density : (n,)
            Log-density of the Gaussians alone.
        """
        narrow = -np.log(self.upper - self.lower)
        present = ~np.isnan(X)
        constant = np.full(len(X), narrow.sum())
        if not present.all():
            constant = np.where(present, narrow, 0.0).sum(axis=1)
        with np.errstate(divide="ignore"):
            return np.log(self.share) + constant, np.log1p(-self.share) + log_density

    def sample(self, n: int, rng: np.random.Generator | np.random.RandomState) -> Array:
        """Rows drawn from the box, (n, d)."""
        return rng.uniform(self.lower, self.upper, size=(n, len(self.lower)))


def _edges(values: Rows, weight: Array | None) -> tuple[float, float]:
    """Where the box of a column begins and ends."""
    present = ~np.isnan(values)
    if not present.any():
        return 0.0, 0.0
    values = values[present].astype(np.float64)
    order = np.argsort(values, kind="stable")
    values = values[order]
    counted = np.ones(len(values)) if weight is None else weight[present][order]
    above = np.cumsum(counted) / counted.sum()
    first, last = values[np.minimum(np.searchsorted(above, [0.25, 0.75]), len(values) - 1)]
    beyond = FENCE * (last - first)
    if beyond == 0:
        return float(values[0]), float(values[-1])
    inside = values[(values >= first - beyond) & (values <= last + beyond)]
    return float(inside[0]), float(inside[-1])


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
    noise : Noise, optional
        Rows that belong to no component; the weights are shares of all other rows.

    Raises
    ------
    SingularCovarianceError
        A covariance is not positive definite.
    """

    weights: Array
    means: Array
    family: CovarianceFamily
    noise: Noise | None = None

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
        noise: Noise | None = None,
    ) -> Parameters:
        """The mixture of stored arrays, bit for bit; their shapes are those of the family."""
        means = np.asarray(means, dtype=np.float64)
        k, d = means.shape
        arrays = np.asarray(covariances), np.asarray(precisions_cholesky)
        found = family(covariance_type)(k, d, *arrays)
        return cls(np.asarray(weights), means, found, noise)

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
        n_gaussian = n_free_parameters(self.covariance_type, *self.means.shape)
        return n_gaussian + (self.noise is not None)

    @property
    def precisions(self) -> Array:
        """Inverse covariances, in the shape of `covariances`."""
        return self.family.precisions

    def dense_factor(self, j: int) -> Array:
        """The factor U of component j as a matrix (d, d), whatever the type."""
        factors = self.family.core_factors
        if factors.ndim == 2:
            return np.diag(factors[j])
        return np.asarray(factors[j % len(factors)])  # there is one where all share it

    def dense_covariances(self) -> Array:
        """Covariances of every component as (k, d, d), whatever the type."""
        return self.family.dense()

    def marginal(self, observed: npt.NDArray[np.intp]) -> Parameters:
        """The mixture of some of the features, in their order."""
        noise = None if self.noise is None else self.noise.take(observed)
        family = self.family.marginal(observed)
        return Parameters(self.weights, self.means[:, observed], family, noise)

    def take(self, order: Sequence[int] | npt.NDArray[np.intp]) -> Parameters:
        """The same mixture with its components in another order."""
        order = np.asarray(order, dtype=np.intp)
        family = self.family.take(order)
        return Parameters(self.weights[order], self.means[order], family, self.noise)

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self.weights, self.means, self.family, self.noise)
