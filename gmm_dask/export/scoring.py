"""The numbers that a scorer needs, in the form in which nothing large cancels.

With the factor U of a component's precision, m its mean and c the log of its weight times density
at the mean, the log of weight times density of a row is c - |(x - m) U|^2 / 2. Where all components
share U, what tells them apart is linear in z = (x - m_0) U:

    log-odds of j against 0 = c_j - c_0 - a_j . z - |a_j|^2 / 2,   a_j = (m_0 - m_j) U

(Bishop, Pattern Recognition and Machine Learning, 4.65), so that far rows keep their digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.mixture.covariance.matrices import Tied
from gmm_dask.mixture.covariance.variances import Variances
from gmm_dask.mixture.steps import log_densities_at_means

Array = npt.NDArray[np.float64]

LARGEST = 1.7e308  # what is beyond, in size, is no finite double
NEVER = -1e300  # log of weight times density of a component of weight 0, which SQL has no word for


class Described(Protocol):
    """A mixture with the names of its features: a model record, or what `load_model` gives."""

    @property
    def parameters(self) -> Parameters:
        """The mixture."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the means."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """What a scorer is made of.

    Parameters
    ----------
    means : (k, d)
    factors : (k, d, d), or (k, d) where features are independent, or (1, d, d) where it is shared
    constants : (k,)
        Log of weight times density at the mean; log-odds against component 0 at its mean where the
        factor is shared, and the first is that of the density.
    slopes : (k, d) or None
        a_j, where the factor is shared.
    noise : float or None
        Log of share times density of a noise component; the constants are then of the others.
    """

    means: Array
    factors: Array
    constants: Array
    slopes: Array | None = None
    noise: float | None = None

    @classmethod
    def of(cls, parameters: Parameters) -> Scoring:
        """The numbers of a mixture."""
        means, family = parameters.means, parameters.family
        constants, noise = log_densities_at_means(parameters), None
        if parameters.noise is not None:
            nothing = np.full((1, parameters.n_features), 0.0)
            of_noise, of_others = parameters.noise.log_shares(nothing, np.zeros(1))
            constants, noise = constants + of_others, max(float(of_noise[0]), NEVER)
        constants = np.maximum(constants, NEVER)
        if isinstance(family, Variances):
            return cls(means, 1 / np.sqrt(family.variances), constants, noise=noise)
        if isinstance(family, Tied):
            factor = parameters.dense_factor(0)
            slopes = (means[0] - means) @ factor
            odds = constants - constants[0] - 0.5 * (slopes**2).sum(axis=1)
            odds[0] = constants[0]
            return cls(means, factor[None], odds, slopes, noise)
        k = parameters.n_components
        factors = np.stack([parameters.dense_factor(j) for j in range(k)])
        return cls(means, factors, constants, noise=noise)
