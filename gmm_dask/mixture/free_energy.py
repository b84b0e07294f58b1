"""Statistics that were taken under different parameters, brought together.

Neal and Hinton 1998 ("A view of the EM algorithm that justifies incremental, sparse, and other
variants"): the E-step of some rows and the M-step both raise F = E log p(x, z) + H(q), q being
each row's responsibilities. F is never above the log-likelihood, and equals it where all q are of
the current parameters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import DOUBT, ignoring_overflow, log_densities_at_means

Array = npt.NDArray[np.float64]


@ignoring_overflow
def about(
    statistics: SufficientStatistics, means: Array, parameters: Parameters
) -> SufficientStatistics:
    """Sums that were measured from `means` (k, d), as measured from the means of the parameters.

    By way of the scatter about the rows' own mean (Chan, Golub, LeVeque 1983), so that no large
    terms cancel. What rounding may have left there is added, as in the M-step.
    """
    moved = means - parameters.means
    if not moved.any():
        return statistics
    chosen, rows, d = parameters.family, statistics.sum_resp, parameters.n_features
    centre = statistics.sum_x / np.where(rows > 0, rows, 1.0)[:, None]
    scatter = statistics.sum_xx - chosen.scatter_of(rows, centre)
    scatter = scatter + chosen.uncorrelated(DOUBT * d * rows[:, None] * centre**2)
    sum_xx = scatter + chosen.scatter_of(rows, centre + moved)
    return replace(statistics, sum_x=statistics.sum_x + rows[:, None] * moved, sum_xx=sum_xx)


@ignoring_overflow
def implied(mixture: Parameters, sum_weight: float, parameters: Parameters) -> SufficientStatistics:
    """Sums over rows of that weight that are just as the mixture says, about the other's means."""
    chosen, rows = mixture.family, sum_weight * mixture.weights
    moved = mixture.means - parameters.means
    sum_xx = chosen.expected_scatter(rows, mixture.covariances, mixture.n_features)
    sum_xx = sum_xx + chosen.scatter_of(rows, moved)
    return SufficientStatistics(0, 0.0, 0.0, rows, rows[:, None] * moved, sum_xx)


def times(factor: float, statistics: SufficientStatistics) -> SufficientStatistics:
    """The sums of complete rows, each times a number, which may be negative."""
    return replace(
        statistics,
        sum_resp=factor * statistics.sum_resp,
        sum_x=factor * statistics.sum_x,
        sum_xx=factor * statistics.sum_xx,
    )


@ignoring_overflow
def gain(statistics: SufficientStatistics, before: Parameters, after: Parameters) -> float:
    """How much larger E log p(x, z) is under `after` than under `before`, where it was expected.

    A difference from the start: where columns nearly depend on each other, both terms are known
    to far fewer digits than it.

    Parameters
    ----------
    statistics : SufficientStatistics
        Taken under `before`.
    """
    rows, moved = statistics.sum_resp, before.means - after.means
    logs = log_densities_at_means(after) - log_densities_at_means(before)
    distances = 0.0
    for j in range(before.n_components):
        factor = after.dense_factor(j)
        step = moved[j] @ factor
        distances += float((2 * (statistics.sum_x[j] @ factor) + rows[j] * step) @ step)
    spread = _spread_change(statistics.sum_xx, before, after)
    return float(np.where(rows > 0, rows * logs, 0.0).sum() - 0.5 * (distances + spread))


def _spread_change(scatter: Array, before: Parameters, after: Parameters) -> float:
    """Change of the squared distances that the scatter makes, all components together."""
    old, new = before.precisions_cholesky, after.precisions_cholesky
    if not before.family.correlated:
        return float(((new - old) * (new + old) * scatter).sum())
    ratio = np.linalg.solve(old, new)
    within = old.swapaxes(-1, -2) @ scatter @ old
    change = ratio @ ratio.swapaxes(-1, -2) - np.eye(before.n_features)
    return float((change * within).sum())
