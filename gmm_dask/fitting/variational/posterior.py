"""What is believed of a mixture before and after its rows were seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import CovarianceFamily, Estimate, Parameters

Array = npt.NDArray[np.float64]
Concentration = Literal["dirichlet_process", "dirichlet_distribution"]


@dataclass(frozen=True, eq=False)
class VariationalPrior:
    """What is believed of the mixture before any row was seen.

    Parameters
    ----------
    concentration_type : {"dirichlet_process", "dirichlet_distribution"}
    concentration : float
        The concentration of the weights; the lower, the fewer components are used.
    mean_precision : float
        Rows that the mean counts for.
    mean : (d,)
    degrees_of_freedom : float
        Degrees of freedom of the Wishart prior of a precision; more than d - 1.
    covariance : (d, d) full and tied, (d,) diag, float spherical
        Inverse scale of that distribution.
    """

    concentration_type: Concentration
    concentration: float
    mean_precision: float
    mean: Array
    degrees_of_freedom: float
    covariance: Array


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is believed of the mixture after a pass.

    Parameters
    ----------
    concentration : (2, k) or (k,)
        Parameters of the Beta distributions of a Dirichlet process, or those of a Dirichlet
        distribution.
    mean_precision : (k,)
    means : (k, d)
    degrees_of_freedom : (k,)
        Degrees of freedom of each component's precision; all have the same where they share one.
    family : CovarianceFamily
        Inverses of the expected precisions.
    """

    concentration: Array
    mean_precision: Array
    means: Array
    degrees_of_freedom: Array
    family: CovarianceFamily

    @property
    def weights(self) -> Array:
        """Expected weights, (k,); they sum to one."""
        if self.concentration.ndim == 1:
            return np.asarray(self.concentration / self.concentration.sum())
        share, rest = self.concentration / self.concentration.sum(axis=0)
        found = share * np.concatenate([[1.0], np.cumprod(rest[:-1])])
        return np.asarray(found / found.sum())

    @property
    def expected(self) -> Parameters:
        """The mixture of the next E-step; its weights sum to less than one."""
        with np.errstate(under="ignore"):
            weights = np.exp(self._log_weights() + self._log_factors())
        return Parameters(weights, self.means, self.family)

    @property
    def scored(self) -> Parameters:
        """The mixture of `expected` with weights that sum to one, as a record of a model has them.

        Responsibilities are those of `expected`; log-densities are larger by one constant.
        """
        found = self.expected
        return replace(found, weights=found.weights / found.weights.sum())

    @property
    def mixture(self) -> Parameters:
        """Expected weights, means and inverses of the expected precisions."""
        return Parameters(self.weights, self.means, self.family)

    def _log_weights(self) -> Array:
        """E[log weight], (k,) (Bishop, 10.66; Blei and Jordan, section 3)."""
        from scipy.special import digamma

        if self.concentration.ndim == 1:
            return np.asarray(digamma(self.concentration) - digamma(self.concentration.sum()))
        total = digamma(self.concentration.sum(axis=0))
        share, rest = digamma(self.concentration) - total
        return np.asarray(share + np.concatenate([[0.0], np.cumsum(rest[:-1])]))

    def _log_factors(self) -> Array:
        """What expectations change in the log-density at the mean, (k,) (Bishop, 10.64, 10.65)."""
        from scipy.special import digamma

        d = self.means.shape[1]
        halves = (self.degrees_of_freedom - np.arange(d)[:, None]) / 2
        log_determinant = d * math.log(2) + digamma(halves).sum(axis=0)
        of_means = log_determinant - d / self.mean_precision
        return np.asarray((of_means - d * np.log(self.degrees_of_freedom)) / 2)

    def log_norms(self) -> float:
        """The terms of the lower bound that come from the posterior alone (Bishop, 10.2.2)."""
        from scipy.special import betaln, gammaln

        d, freedom = self.means.shape[1], self.degrees_of_freedom
        log_det = self.family.log_determinants() - d * np.log(freedom) / 2
        log_wishart = -(
            freedom * (log_det + d * math.log(2) / 2)
            + gammaln((freedom - np.arange(d)[:, None]) / 2).sum(axis=0)
        )
        if self.concentration.ndim == 1:
            log_weights = gammaln(self.concentration.sum()) - gammaln(self.concentration).sum()
        else:
            log_weights = -betaln(*self.concentration).sum()
        of_means = d * np.log(self.mean_precision).sum() / 2
        return float(-log_wishart.sum() - log_weights - of_means)


def posterior_of(
    prior: VariationalPrior, rows: Array, means: Array, scatter: Array, like: CovarianceFamily
) -> Posterior:
    """The posterior of what each component has of the rows.

    Parameters
    ----------
    rows : (k,)
    means : (k, d)
    scatter : as the family keeps it
        The scatter of these rows about these means.
    like : CovarianceFamily
        Any covariances of the same family.
    """
    k, d = means.shape
    weight, freedom = prior.mean_precision + rows, prior.degrees_of_freedom
    apart = means - prior.mean
    scatter = scatter + like.scatter_of(rows * prior.mean_precision / weight, apart)
    shared = like.owners == (None,)
    believed, extra = np.asarray(prior.covariance), freedom
    if shared:  # in the sums of all components, of which each has an equal part
        believed, extra = k * believed, k * freedom
    elif like.sum_shape == (k,):  # one variance has the sums of all features
        believed = d * believed
    family = like.averaged(scatter + believed, rows, extra)
    counted = freedom + (np.full(k, rows.sum() / k) if shared else rows)
    moved = (prior.mean_precision * prior.mean + rows[:, None] * means) / weight[:, None]
    return Posterior(_concentration(prior, rows), weight, moved, counted, family)


def begin(prior: VariationalPrior, start: Estimate, sum_weight: float) -> Posterior:
    """The posterior of a start, as if it had been found on so many rows."""
    rows = start.weights * sum_weight
    like = start.family
    return posterior_of(prior, rows, start.means, like.expected_scatter(rows), like)


def _concentration(prior: VariationalPrior, rows: Array) -> Array:
    """Parameters of the posterior of the weights (Blei and Jordan, equation 18; Bishop, 10.58)."""
    if prior.concentration_type == "dirichlet_distribution":
        return np.asarray(prior.concentration + rows)
    after = np.concatenate([np.cumsum(rows[::-1])[-2::-1], [0.0]])
    return np.stack([1.0 + rows, prior.concentration + after])
