"""The EM loop: it is handed one function, `expectation`, and never sees an array of rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gmm_dask.errors import NotFiniteError
from gmm_dask.fitting.components import Event, Maximisation
from gmm_dask.mixture import Parameters, SufficientStatistics

Expectation = Callable[[Parameters], SufficientStatistics]


class Outcome(StrEnum):
    """How a fit ended; each value is one ending."""

    CONVERGED = "converged"
    OUT_OF_ITERATIONS = "out_of_iterations"

    @property
    def advice(self) -> str:
        """What to do next, in one sentence."""
        return _ADVICE[self]


_ADVICE = {
    Outcome.CONVERGED: "The log-likelihood per row changed by less than tol.",
    Outcome.OUT_OF_ITERATIONS: (
        "max_iter was reached before the log-likelihood settled: "
        "raise max_iter, or accept a larger tol."
    ),
}


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over the data, as told to whoever watches the fit.

    Parameters
    ----------
    start, number : int
        Which initialisation and which pass of it, both from 1.
    lower_bound : float
        Mean log-likelihood per row under `parameters`, the state the pass started from; with a
        prior, of the posterior.
    change : float
        Against the pass before; infinite in the first.
    seconds : float
        Wall time of the E-step.
    n_rows : int
        Rows used.
    parameters : Parameters
    events : tuple of Event
        What began to be done to components after this pass.
    """

    start: int
    number: int
    lower_bound: float
    change: float
    seconds: float
    n_rows: int
    parameters: Parameters
    events: tuple[Event, ...] = ()


Watcher = Callable[[Pass], None]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A finished fit.

    Parameters
    ----------
    parameters : Parameters
        After the last M-step.
    lower_bounds : tuple of float
        Mean log-likelihood per row, pass by pass.
    outcome : Outcome
    trajectory : tuple of Parameters
        The state each pass started from, and the last.
    n_rows : int
        Rows used in each pass.
    sum_weight : float
        Sum of their weights; infinite where it is beyond float64.
    events_ : tuple of Event
        What was done to components that starved, collapsed or became singular.
    """

    parameters: Parameters
    lower_bounds: tuple[float, ...]
    outcome: Outcome
    trajectory: tuple[Parameters, ...]
    n_rows: int
    sum_weight: float
    events_: tuple[Event, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the log-likelihood settled within tol."""
        return self.outcome is Outcome.CONVERGED

    @property
    def n_passes(self) -> int:
        """Passes over the data."""
        return len(self.lower_bounds)


def fit(
    expectation: Expectation,
    parameters: Parameters,
    maximise: Maximisation,
    *,
    tol: float,
    max_iter: int,
    watch: Watcher | None = None,
    previous: float = -math.inf,
    events: tuple[Event, ...] = (),
) -> FitResult:
    """Alternate expectation and maximisation until the mean log-likelihood settles.

    Parameters
    ----------
    expectation : parameters -> statistics
        One pass over the data, wherever the data are; weights are in the unit of `maximise`.
    parameters : Parameters
        The start.
    maximise : Maximisation
        The M-step, with its prior and its policy for components in trouble.
    tol : float
        Convergence is a change of the log-likelihood per row smaller than this, in a pass after
        which no component got into trouble.
    max_iter : int
        Passes at most.
    watch : callable, optional
        Told of every pass.
    previous : float
        Log-likelihood per row that an earlier fit ended with, where this one goes on from it.
    events : tuple of Event
        Of the start.

    Raises
    ------
    NotFiniteError
        The log-likelihood is not a number any more.
    SingularCovarianceError, StarvedComponentError
        A component is no density any more, and the policy is to stop or cannot be carried out.
    """
    trajectory, lower_bounds = [parameters], [previous]
    outcome, statistics = Outcome.OUT_OF_ITERATIONS, SufficientStatistics.zero(parameters)
    while len(lower_bounds) <= max_iter:
        begun, number = time.perf_counter(), len(lower_bounds)
        statistics = expectation(parameters)
        seconds = time.perf_counter() - begun
        penalty = maximise.penalty(parameters)
        lower_bounds.append(_finite(statistics, penalty, number, maximise.unit))
        change = lower_bounds[-1] - lower_bounds[-2]
        parameters, events = maximise(parameters, statistics, number, events)
        new = tuple(event for event in events if event.pass_number == number)
        if watch is not None:
            bound, seen = lower_bounds[-1], trajectory[-1]
            record = (maximise.start, number, bound, change, seconds, statistics.n_rows, seen, new)
            watch(Pass(*record))
        trajectory.append(parameters)
        if abs(change) < tol and not new:
            outcome = Outcome.CONVERGED
            break
    return FitResult(
        parameters,
        tuple(lower_bounds[1:]),
        outcome,
        tuple(trajectory),
        statistics.n_rows,
        statistics.sum_weight * maximise.unit,
        events,
    )


def best_of(results: list[FitResult]) -> FitResult:
    """The result of largest final log-likelihood; the earliest of equals."""
    return max(results, key=lambda result: result.lower_bounds[-1] if result.n_passes else 0.0)


def _finite(statistics: SufficientStatistics, penalty: float, number: int, unit: float) -> float:
    total, weight = statistics.log_likelihood + penalty, statistics.sum_weight
    lower_bound = total / weight if weight else math.nan
    if not math.isfinite(lower_bound):
        raise NotFiniteError(
            f"The log-likelihood per row is {lower_bound} in pass {number} over "
            f"{statistics.n_rows} rows of total weight {weight * unit}. Look for rows that are "
            "more than 1e154 standard deviations from all others, and for weights that are all "
            "zero."
        )
    return lower_bound
