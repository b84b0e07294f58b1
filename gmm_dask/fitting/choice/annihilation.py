"""Components that die by minimum message length: starts for fewer components out of one of many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.em import Fit, Rule, SharedPass, advance
from gmm_dask.fitting.events import Event
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.mixture import Parameters, SufficientStatistics, n_free_parameters

MAX_PASSES = 60  # with one number of components; those of fewer go on from where these came to


def message_length(parameters: Parameters, log_likelihood: float, log_weight: float) -> float:
    """Nats that it takes to tell the mixture and, with it, the rows.

    Parameters
    ----------
    parameters : Parameters
    log_likelihood : float
        The log-likelihood of all rows.
    log_weight : float
        Log of the number of rows.

    Figueiredo and Jain 2002, IEEE Trans. Pattern Anal. Mach. Intell. 24, equation 15, but for two
    things: parameters that all components share count once, and log(1 + r / 12) stands in the place
    of log(r / 12) for the r rows of a component, of which fewer than 12 would be paid for.
    """
    alive = parameters.weights[parameters.weights > 0]
    k, own = len(alive), _own(parameters)
    shared = n_free_parameters(parameters.covariance_type, 1, parameters.n_features) - own
    shared += parameters.noise is not None
    log_twelfth = log_weight - math.log(12)
    of_own = own / 2 * float(np.log1p(np.exp(log_twelfth) * alive).sum())
    return of_own + (k + shared) / 2 * log_twelfth + (k * (own + 1) + shared) / 2 - log_likelihood


@dataclass(frozen=True, eq=False)
class Annihilation(Maximisation):
    """An M-step that removes components with too few rows for their parameters.

    Each component counts half a row less for each of its parameters, and one that is left with
    none dies (Figueiredo and Jain 2002, equation 17). Of several only that of the fewest rows dies
    in a pass, for the others share what it held, as in their component-wise EM.

    Parameters
    ----------
    rows : float, optional
        How many there are; where it is not given, their weight says it.
    """

    rows: float | None = None

    @classmethod
    def of(cls, plain: Maximisation, rows: float | None = None) -> Annihilation:
        """An M-step with the guards of a plain one."""
        known = {field.name: getattr(plain, field.name) for field in fields(Maximisation)}
        return cls(**known, rows=rows)

    def __call__(
        self,
        parameters: Parameters,
        statistics: SufficientStatistics,
        pass_number: int,
        events: tuple[Event, ...] = (),
    ) -> Step:
        """See Maximisation."""
        step = super().__call__(parameters, statistics, pass_number, events)
        found, rows = step.parameters, self.rows or statistics.sum_weight * self.unit
        worth = found.weights * rows - _own(found) / 2
        if found.n_components > 1 and worth.min() <= 0:
            found = _without(found, int(worth.argmin()))
            worth = found.weights * rows - _own(found) / 2
        weights = np.where(worth > 0, worth, found.weights * rows)
        return step._replace(parameters=replace(found, weights=weights / weights.sum()))


def annihilated(
    most: Fit, shared_pass: SharedPass, fewest: int, rows: float | None, tol: float
) -> Iterator[Parameters]:
    """Mixtures of fewer and fewer components, one for each number at which EM settled.

    Where it rests the component of the least weight is taken away, until the fewest are left. It
    ends before that where a component is in trouble.

    Parameters
    ----------
    most : Fit
        The fit with the most components, before its first pass.
    shared_pass : fits -> the statistics under the parameters of each
    fewest : int
    rows : float, optional
        The same as for Annihilation.
    tol : float
        Change of the log-likelihood per row with which EM is at rest.
    """
    killing, parameters = Annihilation.of(most.maximise, rows), most.parameters
    while True:
        begun = Fit.begin(Step(parameters, ()), killing, Rule(tol, MAX_PASSES))
        if not (ended := advance([begun], shared_pass, leaving=IN_TROUBLE)):
            return
        parameters = ended[0].state.settled
        yield parameters
        if parameters.n_components <= fewest:
            return
        parameters = _without(parameters, int(parameters.weights.argmin()))


def _own(parameters: Parameters) -> int:
    """Parameters of a component beside its weight."""
    of = parameters.covariance_type, parameters.n_features
    one, two = (n_free_parameters(of[0], k, of[1]) for k in (1, 2))
    return two - one - 1


def _without(parameters: Parameters, j: int) -> Parameters:
    kept: npt.NDArray[np.intp] = np.delete(np.arange(parameters.n_components), j)
    fewer = parameters.take(kept)
    return replace(fewer, weights=fewer.weights / fewer.weights.sum())
