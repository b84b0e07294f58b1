"""The EM loop: it is handed one function, `expectation`, and never sees an array of rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gmm_dask.errors import NotFiniteError
from gmm_dask.fitting.blocks import Expectation, Passes, one_pass
from gmm_dask.fitting.components import Event, Maximisation, Step
from gmm_dask.fitting.state import State
from gmm_dask.mixture import Parameters, SufficientStatistics

ROUNDED = 1e-7  # of the log-likelihood per row and feature: what rough passes cannot tell


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
        prior, of the posterior. In a pass of blocks the state that the last block was looked at
        under, and what its log-likelihood is at least.
    change : float
        Against the pass before; infinite in the first.
    seconds : float
        Wall time of the E-step, or of all blocks.
    n_rows : int
        Rows used.
    parameters : Parameters
    events : tuple of Event
        What began to be done to components after this pass.
    taken_back : bool
        The state was extrapolated and is worse than the one before: the fit goes on from the
        M-step that it was to improve on.
    """

    start: int
    number: int
    lower_bound: float
    change: float
    seconds: float
    n_rows: int
    parameters: Parameters
    events: tuple[Event, ...] = ()
    taken_back: bool = False


Watcher = Callable[[Pass], None]
Keeper = Callable[[State], None]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A finished fit.

    Parameters
    ----------
    parameters : Parameters
        After the last M-step.
    lower_bounds : tuple of float
        Mean log-likelihood per row, pass by pass, without the passes that were taken back; with
        blocks what it is at least.
    outcome : Outcome
    trajectory : tuple of Parameters
        The state each of these bounds is of, and the last.
    n_rows : int
        Rows used in each pass.
    sum_weight : float
        Sum of their weights; infinite where it is beyond float64.
    events_ : tuple of Event
        What was done to components that starved, collapsed or became singular.
    n_taken_back : int
        Passes that an extrapolation was tried in for nothing.
    start : int
        Which initialisation, from 1.
    """

    parameters: Parameters
    lower_bounds: tuple[float, ...]
    outcome: Outcome
    trajectory: tuple[Parameters, ...]
    n_rows: int
    sum_weight: float
    events_: tuple[Event, ...] = ()
    n_taken_back: int = 0
    start: int = 1

    @property
    def converged(self) -> bool:
        """Whether the log-likelihood settled within tol."""
        return self.outcome is Outcome.CONVERGED

    @property
    def n_passes(self) -> int:
        """Passes over the data."""
        return len(self.lower_bounds) + self.n_taken_back


def fit(
    expectation: Expectation,
    parameters: Parameters,
    maximise: Maximisation,
    *,
    tol: float,
    max_iter: int,
    accelerate: bool = False,
    watch: Watcher | None = None,
    previous: float = -math.inf,
    events: tuple[Event, ...] = (),
    blocks: Sequence[Expectation] = (),
    rough: Passes | None = None,
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
    accelerate : bool
        Extrapolate from the M-steps so far. The log-likelihood does not fall: a step after which
        it would have is taken back.
    watch : callable, optional
        Told of every pass.
    previous : float
        Log-likelihood per row that an earlier fit ended with, where this one goes on from it.
    events : tuple of Event
        Of the start.
    blocks : sequence of Expectation
    rough : Passes, optional
        As for `go_on`.

    Raises
    ------
    NotFiniteError
        The log-likelihood is not a number any more.
    SingularCovarianceError, StarvedComponentError
        A component is no density any more, and the policy is to stop or cannot be carried out.
    """
    state = State.begin(Step(parameters, events), previous, is_rough=rough is not None)
    return go_on(
        expectation,
        state,
        maximise,
        tol=tol,
        max_iter=max_iter,
        accelerate=accelerate,
        watch=watch,
        blocks=blocks,
        rough=rough,
    )


def go_on(
    expectation: Expectation,
    state: State,
    maximise: Maximisation,
    *,
    tol: float,
    max_iter: int,
    accelerate: bool = False,
    watch: Watcher | None = None,
    keep: Keeper | None = None,
    blocks: Sequence[Expectation] = (),
    rough: Passes | None = None,
) -> FitResult:
    """The rest of a fit, from any state of it: the result has the bits of one that never stopped.

    Parameters
    ----------
    state : State
    keep : callable, optional
        Handed the state before the first pass, and the state after every pass.
    blocks : sequence of Expectation
        The same rows in parts, each of which an M-step is to follow; fewer than two are none.
    rough : Passes, optional
        Cheaper passes over the same rows, whose log-likelihoods are rounded: they come first, and
        end where the log-likelihood rises by less than tol, or than they can tell. The passes
        after them decide whether the fit has converged.

    The others are those of `fit`, and so are the errors.
    """
    if rough is None:
        state = replace(state, is_rough=False)
    if keep is not None:
        keep(state)
    while not state.is_over(max_iter):
        before, begun, number = state, time.perf_counter(), state.n_passes + 1
        passes = rough if rough is not None and state.is_rough else Passes(expectation, blocks)
        parameters, statistics, parts = one_pass(*passes, state, maximise)
        seconds = time.perf_counter() - begun
        bound = _lower_bound(statistics, maximise.penalty(parameters))
        state = state.seen(statistics, parameters)
        if state.is_worse(bound):
            state = state.taken_back()
        else:
            _check_finite(bound, statistics, number, maximise.unit)
            step = maximise(parameters, statistics, number, state.events)
            least = max(tol, ROUNDED * parameters.n_features) if state.is_rough else tol
            state = state.advanced(bound, step, least, accelerate=accelerate, parts=parts)
        if watch is not None:
            watch(_pass(maximise.start, before, state, bound, seconds, parameters))
        if keep is not None:
            keep(state)
    return _result(state, maximise)


def best_of(results: list[FitResult]) -> FitResult:
    """The result of largest final log-likelihood; the earliest of equals."""
    return max(results, key=lambda result: result.lower_bounds[-1] if result.n_passes else 0.0)


def _pass(
    start: int, before: State, after: State, bound: float, seconds: float, parameters: Parameters
) -> Pass:
    number = after.n_passes
    return Pass(
        start,
        number,
        bound,
        bound - before.last_bound,
        seconds,
        after.n_rows,
        parameters,
        tuple(event for event in after.events if event.pass_number == number),
        after.n_taken_back > before.n_taken_back,
    )


def _result(state: State, maximise: Maximisation) -> FitResult:
    return FitResult(
        state.settled,
        state.lower_bounds,
        Outcome.CONVERGED if state.settled_within_tol else Outcome.OUT_OF_ITERATIONS,
        (*state.trajectory[:-1], state.settled),
        state.n_rows,
        state.sum_weight * maximise.unit,
        state.events,
        state.n_taken_back,
        maximise.start,
    )


def _lower_bound(statistics: SufficientStatistics, penalty: float) -> float:
    total, weight = statistics.log_likelihood + penalty, statistics.sum_weight
    return total / weight if weight else math.nan


def _check_finite(
    lower_bound: float, statistics: SufficientStatistics, number: int, unit: float
) -> None:
    if not math.isfinite(lower_bound):
        raise NotFiniteError(
            f"The log-likelihood per row is {lower_bound} in pass {number} over "
            f"{statistics.n_rows} rows of total weight {statistics.sum_weight * unit}. Look for "
            "rows that are more than 1e154 standard deviations from all others, and for weights "
            "that are all zero."
        )
