"""What one E-step leaves behind: sums that add up across tiles, chunks and workers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Sums over rows, with x measured from the mean each component had at the start of the pass.

    Measured so, `+` is all that merging takes and no digits are lost to an offset of the data:
    every chunk of a pass shares the means (Chan, Golub, LeVeque 1983 on why raw moments fail).

    Parameters
    ----------
    n_rows : int
        Rows seen.
    sum_weight : float
        Sum of the row weights; the number of rows where there are none.
    log_likelihood : float
        Weighted sum of the rows' log-densities.
    sum_resp : (k,)
        sum r, r the weighted responsibility.
    sum_x : (k, d)
        sum r (x - m).
    sum_xx : (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical
        sum r (x - m)(x - m)^T, or what the family keeps of it.
    sum_observed : (k, d) or None
        sum r over the rows in which the feature has a value; None where all have all, so that
        it is sum_resp for every feature.
    """

    n_rows: int
    sum_weight: float
    log_likelihood: float
    sum_resp: Array
    sum_x: Array
    sum_xx: Array
    sum_observed: Array | None = None

    @classmethod
    def zero(cls, parameters: Parameters) -> SufficientStatistics:
        """The statistics of no rows, the neutral element of `+`."""
        k, d = parameters.means.shape
        scatter = np.zeros(parameters.family.sum_shape)
        return cls(0, 0.0, 0.0, np.zeros(k), np.zeros((k, d)), scatter)

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        return SufficientStatistics(
            self.n_rows + other.n_rows,
            self.sum_weight + other.sum_weight,
            self.log_likelihood + other.log_likelihood,
            self.sum_resp + other.sum_resp,
            self.sum_x + other.sum_x,
            self.sum_xx + other.sum_xx,
            None
            if self.sum_observed is None and other.sum_observed is None
            else self.observed + other.observed,
        )

    @property
    def observed(self) -> Array:
        """sum r over the rows in which the feature has a value, (k, d)."""
        if self.sum_observed is not None:
            return self.sum_observed
        return np.broadcast_to(self.sum_resp[:, None], self.sum_x.shape)

    @property
    def lower_bound(self) -> float:
        """Mean log-likelihood per unit of weight; NaN where there are no rows."""
        return self.log_likelihood / self.sum_weight if self.sum_weight else float("nan")


def statistics_bytes(parameters: Parameters) -> int:
    """Size of one record of statistics of complete rows under these parameters."""
    k, d = parameters.means.shape
    numbers: int = k * (1 + d) + math.prod(parameters.family.sum_shape)
    return 8 * numbers
