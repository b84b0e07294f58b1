"""Conjugate priors for maximum a posteriori estimates, in units of the data's spread.

Dirichlet on the weights; normal-inverse-Wishart on the means and covariances, which is an
inverse gamma for single variances (Fraley and Raftery 2007, Journal of Classification 24;
Murphy, Machine Learning: a Probabilistic Perspective, 11.4.2.8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.mixture.covariance import CovarianceFamily
from gmm_dask.mixture.parameters import Estimate, Parameters
from gmm_dask.sampling import ColumnSpread

Array = npt.NDArray[np.float64]

LEAST_UNIT_OF_PRIOR = 2.0**-500  # in a smaller one what a prior weighs might be beyond float64
MOST_ROWS = 1e100  # that a prior may count for: sums with the data's stay within float64
LARGEST_VARIANCE = 1e300  # of a prior, for the same reason


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed before any row is seen; as many rows as it counts for, so much it weighs.

    Parameters
    ----------
    weight_concentration : float
        Concentration of the Dirichlet prior of the weights, at least 1; a concentration of 1 says
        nothing.
    mean_precision : float
        Rows that the prior mean counts for in each component; 0 says nothing.
    mean : (d,)
    degrees_of_freedom : float
        Degrees of freedom of the inverse Wishart prior of the covariances.
    variances : (d,) or None
        Diagonal of its scale matrix; None says nothing about covariances.
    row : float
        What one row weighs in the sums that the prior is added to; see `in_unit`.
    """

    weight_concentration: float
    mean_precision: float
    mean: Array
    degrees_of_freedom: float
    variances: Array | None
    row: float = 1.0

    def in_unit(self, unit: float) -> Prior:
        """The prior for sums of weights in another unit; its log-density is in that unit too."""
        variances = None if self.variances is None else self.variances / unit
        precision = self.mean_precision / unit
        return replace(self, mean_precision=precision, variances=variances, row=self.row / unit)

    @property
    def rows_of_mean(self) -> float:
        """Rows more in a covariance's divisor: the prior of a mean has one deviation in it."""
        return self.row * (self.mean_precision > 0)

    @property
    def sustains(self) -> bool:
        """Whether a component without rows is still one: the prior gives weight and spread."""
        return self.weight_concentration > 1 and self.variances is not None

    def scale(self, family: CovarianceFamily) -> Array | float:
        """Scale matrix of the inverse Wishart in the family's form; 0 where there is none."""
        return 0.0 if self.variances is None else family.prior_scatter(self.variances)

    def rows_of_covariance(self, family: CovarianceFamily) -> float:
        """Rows that the inverse Wishart counts for in each covariance."""
        if self.variances is None:
            return 0.0
        return self.row * family.prior_rows(self.degrees_of_freedom)

    def weights(self, rows: Array) -> Array:
        """The most probable weights of components that hold so many rows, (k,)."""
        counted = rows + self.row * (self.weight_concentration - 1)
        return np.asarray(counted / counted.sum())

    def applied(self, found: Estimate, n_rows: float) -> Estimate:
        """What an estimate from n_rows rows becomes with the prior; means are left alone."""
        family, rows = found.family, found.weights * n_rows
        if self.variances is not None:
            scatter = family.expected_scatter(rows) + self.scale(family)
            family = family.averaged(scatter, rows, self.rows_of_covariance(family))
        return Estimate(self.weights(rows), found.means, family, found.alive | self.sustains)

    def log_density(self, parameters: Parameters) -> float:
        """Log of the prior at the parameters, up to a constant."""
        family = parameters.family
        log_det = -2 * family.log_determinants()  # of the covariances
        total = 0.0
        if self.weight_concentration > 1:
            with np.errstate(divide="ignore"):
                logs = float(np.log(parameters.weights).sum())
            total += self.row * (self.weight_concentration - 1) * logs
        if self.variances is not None:
            each = log_det[: len(family.owners)]
            total -= 0.5 * self.rows_of_covariance(family) * float(each.sum())
            total -= 0.5 * family.trace_with(self.variances)
        if self.mean_precision > 0:
            total -= 0.5 * self.row * float(log_det.sum())
            total -= 0.5 * self.mean_precision * float(self._distances(parameters).sum())
        return total

    def _distances(self, parameters: Parameters) -> Array:
        """Squared Mahalanobis distance of each component's mean from the prior's, (k,)."""
        distances: Array = np.empty((1, parameters.n_components))
        D, work = np.empty((2, 1, parameters.n_features))
        parameters.family.measure(self.mean[None], parameters.means, D, work, distances)
        return np.asarray(distances[0])


def in_one_unit(spread: ColumnSpread, prior: Prior | None) -> tuple[ColumnSpread, Prior | None]:
    """The data's spread and the prior in the unit that a fit counts weights in."""
    if prior is None:
        return spread, None
    spread = spread.in_unit(max(spread.unit, LEAST_UNIT_OF_PRIOR))
    return spread, prior.in_unit(spread.unit)


@dataclass(frozen=True)
class PriorSettings:
    """A prior in units of the data's spread, named as in scikit-learn's BayesianGaussianMixture.

    Parameters
    ----------
    weight_concentration : float or None
        At least 1.
    mean_precision : float or None
        Rows that the overall mean counts for in each component.
    degrees_of_freedom : float or None
        More than d - 1; d + 2 where not given.
    covariance : float or None
        The scale matrix is this times the diagonal of the columns' variances.
    """

    weight_concentration: float | None = None
    mean_precision: float | None = None
    degrees_of_freedom: float | None = None
    covariance: float | None = None

    def resolve(self, mean: Array, variances: Array) -> Prior | None:
        """The prior for data of this mean and these variances, each (d,); None if it says nothing.

        Raises
        ------
        SettingsError
            A value is out of its range; the message names it.
        """
        self._check(len(mean))
        if self == PriorSettings():
            return None
        return Prior(
            self.weight_concentration or 1.0,
            self.mean_precision or 0.0,
            mean,
            self._freedom(len(mean)),
            None if self.covariance is None else self._scaled(variances),
        )

    def _freedom(self, d: int) -> float:
        return d + 2.0 if self.degrees_of_freedom is None else self.degrees_of_freedom

    def _scaled(self, variances: Array) -> Array:
        """Diagonal of the scale matrix; variances that are not finite are the data's own fault."""
        assert self.covariance is not None
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.asarray(self.covariance * variances)
            beyond = (scaled > LARGEST_VARIANCE) & (variances <= LARGEST_VARIANCE)
        if beyond.any():
            raise SettingsError(
                f"covariance_prior is {self.covariance}: times the variance of column "
                f"{int(np.argmax(beyond))}, {variances[beyond][0]:.3g}, its sums are beyond "
                "float64. Give a smaller one; it is in variances of the data."
            )
        return scaled

    def _check(self, d: int) -> None:
        concentration = self.weight_concentration
        if concentration is not None and not concentration >= 1:
            raise SettingsError(
                f"weight_concentration_prior is {concentration}; it must be at least 1 (1 says "
                "nothing): below 1 the most probable weights are not defined."
            )
        for name, value in (
            ("mean_precision", self.mean_precision),
            ("covariance", self.covariance),
        ):
            if value is not None and not value > 0:
                raise SettingsError(f"{name}_prior is {value}; it must be positive, or left out.")
        for name, value in (
            ("weight_concentration", concentration),
            ("mean_precision", self.mean_precision),
            ("degrees_of_freedom", self.degrees_of_freedom),
        ):
            if value is not None and not value <= MOST_ROWS:
                raise SettingsError(
                    f"{name}_prior is {value}; it counts rows, and must be at most {MOST_ROWS:g}."
                )
        if self.degrees_of_freedom is not None and self.covariance is None:
            raise SettingsError(
                "degrees_of_freedom_prior needs covariance_prior, the spread that is believed in."
            )
        freedom = self._freedom(d)
        if not freedom > d - 1:
            raise SettingsError(
                f"degrees_of_freedom_prior is {freedom}; it must be more than {d - 1}, the number "
                "of features less one."
            )
