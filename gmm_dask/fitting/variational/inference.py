"""Passes of variational inference: what each makes of the posterior, and when they end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gmm_dask.errors import NotFiniteError
from gmm_dask.fitting.variational.posterior import Posterior, VariationalPrior, posterior_of
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.steps import log_densities_at_means


def maximised(
    prior: VariationalPrior, asked: Posterior, statistics: SufficientStatistics, reg_covar: float
) -> Posterior:
    """The posterior after a pass under `asked.expected`."""
    like, rows = asked.family, statistics.sum_resp
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = np.where(rows[:, None] > 0, statistics.sum_x / rows[:, None], 0.0)
    added = np.broadcast_to(reg_covar * rows[:, None], delta.shape)
    scatter = statistics.sum_xx - like.scatter_of(rows, delta) + like.uncorrelated(added)
    return posterior_of(prior, rows, asked.means + delta, scatter, like)


def lower_bound(asked: Posterior, statistics: SufficientStatistics, found: Posterior) -> float:
    """scikit-learn's lower bound after a pass under one posterior that led to the next.

    The entropy of the responsibilities is the log-likelihood less what they expect of the logs of
    weight times density, all of which is linear in the sums.
    """
    mixture = asked.expected
    distances = float((mixture.precisions * statistics.sum_xx).sum())
    held = statistics.sum_resp > 0
    at_means = log_densities_at_means(mixture)[held]
    expected = float((statistics.sum_resp[held] * at_means).sum()) - distances / 2
    return statistics.log_likelihood - expected + found.log_norms()


@dataclass(frozen=True, eq=False)
class VariationalFit:
    """A fit between two passes: it asks for the statistics under `parameters`.

    Parameters
    ----------
    posterior : Posterior
    prior : VariationalPrior
    reg_covar : float
    tol : float
        Convergence is a change of the lower bound, of all rows together, that is smaller.
    max_iter : int
    start : int
        The number of the initialisation, from 1.
    previous : float
        Lower bound that an earlier fit ended with, where this one goes on from it.
    lower_bounds : tuple of float
        Pass by pass.
    n_rows : int
        Rows used.
    sum_weight : float
        The weight of the rows used.
    """

    posterior: Posterior
    prior: VariationalPrior
    reg_covar: float
    tol: float
    max_iter: int
    start: int = 1
    previous: float = -math.inf
    lower_bounds: tuple[float, ...] = ()
    n_rows: int = 0
    sum_weight: float = 0.0

    @property
    def parameters(self) -> Parameters:
        """The mixture that the next pass is asked about."""
        return self.posterior.expected

    @property
    def lower_bound(self) -> float:
        """The lower bound of the last pass."""
        return self.lower_bounds[-1] if self.lower_bounds else self.previous

    @property
    def change(self) -> float:
        """Change of the lower bound in the last pass; infinite before two bounds are known."""
        *before, last = (self.previous, *self.lower_bounds)
        return last - before[-1] if before else math.inf

    @property
    def converged(self) -> bool:
        """Whether the lower bound has settled."""
        return bool(self.lower_bounds) and abs(self.change) < self.tol

    @property
    def is_running(self) -> bool:
        """Whether a pass is left to make."""
        return not self.converged and len(self.lower_bounds) < self.max_iter

    def tell(self, statistics: SufficientStatistics) -> VariationalFit:
        """The fit after a pass that brought these statistics under `parameters`.

        Raises
        ------
        NotFiniteError
            The lower bound is not a number any more.
        SingularCovarianceError
            A covariance cannot be factored.
        """
        found = maximised(self.prior, self.posterior, statistics, self.reg_covar)
        bound = lower_bound(self.posterior, statistics, found)
        if not math.isfinite(bound):
            raise NotFiniteError(
                f"The lower bound is {bound} in pass {len(self.lower_bounds) + 1} over "
                f"{statistics.n_rows} rows of total weight {statistics.sum_weight}. Look for rows "
                "that are far from all others, and for weights that are all zero."
            )
        return replace(
            self,
            posterior=found,
            lower_bounds=(*self.lower_bounds, bound),
            n_rows=statistics.n_rows,
            sum_weight=statistics.sum_weight,
        )


Together = Callable[[Sequence[Parameters]], Sequence[SufficientStatistics]]
Hearing = Callable[[VariationalFit], None]


def infer(
    fits: Sequence[VariationalFit], together: Together, hear: Hearing | None = None
) -> VariationalFit:
    """The fit of largest lower bound, the earliest of equals; each pass serves all that go on.

    Parameters
    ----------
    fits : sequence of VariationalFit
        One for each start.
    together : parameters of several mixtures -> the statistics under each
        One pass over the rows.
    hear : callable, optional
        Called with each fit after each pass.
    """
    fits = list(fits)
    while running := [i for i, fit in enumerate(fits) if fit.is_running]:
        found = together([fits[i].parameters for i in running])
        for i, statistics in zip(running, found, strict=True):
            fits[i] = fits[i].tell(statistics)
            if hear is not None:
                hear(fits[i])
    return max(fits, key=lambda fit: fit.lower_bound)
