"""EM as a conversation: a fit asks for statistics under its parameters, and is told them.

The loop is handed functions from parameters to statistics, and never sees an array of rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from gmm_dask.errors import NotFiniteError
from gmm_dask.fitting.events import Event
from gmm_dask.fitting.m_step import Maximisation, Step
from gmm_dask.fitting.outcome import FitResult, Outcome, Pass, Watcher
from gmm_dask.fitting.state import State
from gmm_dask.mixture import Parameters, SufficientStatistics

ROUNDED = 1e-7  # of the log-likelihood per row and feature: what single precision cannot tell

Expectation = Callable[[Parameters], SufficientStatistics]


@dataclass(frozen=True)
class Rule:
    """When a fit ends, and by which steps it gets there.

    Parameters
    ----------
    tol : float
        Convergence is a change of the log-likelihood per row smaller than this, in a pass after
        which no component got into trouble.
    max_iter : int
        Passes at most.
    accelerate : bool
        Extrapolate from the M-steps so far. The log-likelihood does not fall: a step after which
        it would have is taken back.
    """

    tol: float
    max_iter: int
    accelerate: bool = False


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit between two passes: it asks for the statistics under `parameters`.

    Parameters
    ----------
    state : State
    maximise : Maximisation
        The M-step, with its prior and its policy for components in trouble.
    rule : Rule
    """

    state: State
    maximise: Maximisation
    rule: Rule

    @classmethod
    def begin(
        cls,
        start: Step,
        maximise: Maximisation,
        rule: Rule,
        previous: float = -math.inf,
        *,
        is_rough: bool = False,
    ) -> Fit:
        """The fit before its first pass."""
        start = start._replace(parameters=maximise.with_noise(start.parameters))
        return cls(State.begin(start, previous, is_rough=is_rough), maximise, rule)

    @property
    def parameters(self) -> Parameters:
        """The mixture that the next pass is asked about."""
        return self.state.parameters

    @property
    def is_running(self) -> bool:
        """Whether a pass is left to make."""
        return not self.state.is_over(self.rule.max_iter)

    @property
    def is_rough(self) -> bool:
        """Whether the next pass may be in single precision."""
        return self.state.is_rough

    def bound(self, statistics: SufficientStatistics) -> float:
        """Mean log-likelihood per row under `parameters`; with a prior, of the posterior."""
        total = statistics.log_likelihood + self.maximise.penalty(self.parameters)
        return total / statistics.sum_weight if statistics.sum_weight else math.nan

    def tell(self, statistics: SufficientStatistics) -> Fit:
        """The fit after a pass that brought these statistics under `parameters`.

        Raises
        ------
        NotFiniteError
            The log-likelihood is not a number any more.
        SingularCovarianceError, StarvedComponentError
            A component is no density any more, and the policy is to stop or cannot be carried out.
        """
        bound, number = self.bound(statistics), self.state.n_passes + 1
        state = self.state.seen(statistics)
        if state.is_worse(bound):
            return replace(self, state=state.taken_back())
        _check_finite(bound, statistics, number, self.maximise.unit)
        step = self.maximise(self.parameters, statistics, number, state.events)
        tol = self.rule.tol
        if state.is_rough:
            tol = max(tol, ROUNDED * self.parameters.n_features)
        # What is extrapolated would leave the bounds, and be better for it.
        accelerate = self.rule.accelerate and self.maximise.eigenvalue_ratio is None
        return replace(self, state=state.advanced(bound, step, tol, accelerate=accelerate))

    @property
    def result(self) -> FitResult:
        """The fit as it stands, as a finished one."""
        state = self.state
        return FitResult(
            state.settled,
            state.lower_bounds,
            Outcome.CONVERGED if state.settled_within_tol else Outcome.OUT_OF_ITERATIONS,
            (*state.trajectory[:-1], state.settled),
            state.n_rows,
            state.sum_weight * self.maximise.unit,
            state.events,
            state.n_taken_back,
            self.maximise.start,
            state.search,
            state.prelude,
        )


SharedPass = Callable[[Sequence[Fit]], Sequence[SufficientStatistics]]
Hearing = Callable[[Fit, Fit, SufficientStatistics, float], None]


def passes(expectation: Expectation, rough: Expectation | None = None) -> SharedPass:
    """A pass for several fits that is one pass for each, a rough one where that will do."""

    def ask(fit: Fit) -> SufficientStatistics:
        chosen = rough if rough is not None and fit.is_rough else expectation
        return chosen(fit.parameters)

    return lambda fits: [ask(fit) for fit in fits]


def advance(
    fits: Sequence[Fit],
    shared_pass: SharedPass,
    *,
    leaving: tuple[type[Exception], ...] = (),
    hear: Hearing | None = None,
) -> list[Fit]:
    """Fits at their ends: each pass over the data serves all fits that are still running.

    Parameters
    ----------
    fits : sequence of Fit
    shared_pass : fits -> the statistics under the parameters of each
    leaving : types of errors, optional
        A fit that raises one of these leaves; the others go on without it.
    hear : callable, optional
        Called with each fit before and after a pass, its statistics and the pass's seconds.
    """
    fits = list(fits)
    while running := [fit for fit in fits if fit.is_running]:
        begun = time.perf_counter()
        found = iter(shared_pass(running))
        seconds, asked, fits = time.perf_counter() - begun, fits, []
        for fit in asked:
            if not fit.is_running:
                fits.append(fit)
                continue
            statistics = next(found)
            with suppress(*leaving):
                fits.append(told := fit.tell(statistics))
                if hear is not None:
                    hear(fit, told, statistics, seconds)
    return fits


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
    rough: Expectation | None = None,
) -> FitResult:
    """Alternate expectation and maximisation until the mean log-likelihood settles.

    Parameters
    ----------
    expectation : parameters -> statistics
        One pass over the data, wherever the data are; weights are in the unit of `maximise`.
    parameters : Parameters
        The start.
    maximise : Maximisation
    tol, max_iter, accelerate
        Those of Rule.
    watch : callable, optional
        Called after every pass.
    previous : float
        Log-likelihood per row that an earlier fit ended with, where this one goes on from it.
    events : tuple of Event
        Events of the start.
    rough : parameters -> statistics, optional
        The same as for `go_on`.

    Raises
    ------
    As `Fit.tell`.
    """
    rule = Rule(tol, max_iter, accelerate)
    start = Step(parameters, events)
    begun = Fit.begin(start, maximise, rule, previous, is_rough=rough is not None)
    return go_on(expectation, begun, watch=watch, rough=rough)


def go_on(
    expectation: Expectation,
    fit: Fit,
    *,
    watch: Watcher | None = None,
    keep: Callable[[State], None] | None = None,
    rough: Expectation | None = None,
) -> FitResult:
    """The rest of a fit, from any state of it: the result has the bits of one that never stopped.

    Parameters
    ----------
    expectation : parameters -> statistics
    fit : Fit
    watch : callable, optional
        Called after every pass.
    keep : callable, optional
        Called with the state before the first pass, and with the state after every pass.
    rough : parameters -> statistics, optional
        A cheaper pass over the same rows, whose log-likelihood is rounded: rough passes come
        first, and end where the log-likelihood rises by less than tol, or than they can tell. The
        passes after them decide whether the fit has converged.

    Raises
    ------
    As `Fit.tell`.
    """
    if rough is None:
        fit = replace(fit, state=replace(fit.state, is_rough=False))

    def hear(asked: Fit, told: Fit, statistics: SufficientStatistics, seconds: float) -> None:
        if watch is not None:
            watch(_pass(asked, told, statistics, seconds))
        if keep is not None:
            keep(told.state)

    if keep is not None:
        keep(fit.state)
    (ended,) = advance([fit], passes(expectation, rough), hear=hear)
    return ended.result


def _pass(asked: Fit, told: Fit, statistics: SufficientStatistics, seconds: float) -> Pass:
    number, bound = told.state.n_passes, asked.bound(statistics)
    return Pass(
        told.maximise.start,
        number,
        bound,
        bound - asked.state.last_bound,
        seconds,
        told.state.n_rows,
        asked.parameters,
        tuple(event for event in told.state.events if event.pass_number == number),
        told.state.n_taken_back > asked.state.n_taken_back,
    )


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
