"""Where a fit is between two passes: all that it takes to go on, as immutable records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gmm_dask.fitting.acceleration import NOTHING, History
from gmm_dask.fitting.events import Event
from gmm_dask.fitting.m_step import Step
from gmm_dask.fitting.outcome import FitResult, Prelude, SearchRecord, best_of
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.statistics import statistics_bytes

TRAJECTORY_BYTES = 16 << 20  # of the states that are remembered; the earliest are forgotten first
NOISE_TOL = 1e-4  # change of the share of noise: its last rows change the log-likelihood little


@dataclass(frozen=True, eq=False)
class State:
    """A fit between two passes.

    Parameters
    ----------
    parameters : Parameters
        What the next pass starts from.
    settled : Parameters
        The result of the last M-step; where it is not `parameters`, those were extrapolated.
    previous : float
        Log-likelihood per row before the first pass; minus infinity where none is known.
    lower_bounds : tuple of float
        Mean log-likelihood per row of each pass that was not taken back.
    n_taken_back : int
        Passes that an extrapolation was tried in for nothing.
    events : tuple of Event
    history : History
        What the next extrapolation is made of.
    trajectory : tuple of Parameters
        The states that the bounds are of, and the last; the latest TRAJECTORY_BYTES of them.
    settled_within_tol : bool
    n_rows : int
        Rows used in the last pass.
    sum_weight : float
        The weight of these rows, in the unit of the statistics.
    is_rough : bool
        The next pass is one of the cheaper ones, whose log-likelihoods are rounded.
    search : SearchRecord, optional
        The record of the search that found the start.
    prelude : Prelude, optional
        The passes over a sample before the first.
    """

    parameters: Parameters
    settled: Parameters
    previous: float = -math.inf
    lower_bounds: tuple[float, ...] = ()
    n_taken_back: int = 0
    events: tuple[Event, ...] = ()
    history: History = NOTHING
    trajectory: tuple[Parameters, ...] = ()
    settled_within_tol: bool = False
    n_rows: int = 0
    sum_weight: float = 0.0
    is_rough: bool = False
    search: SearchRecord | None = None
    prelude: Prelude | None = None

    @classmethod
    def begin(cls, start: Step, previous: float = -math.inf, *, is_rough: bool = False) -> State:
        """The state before the first pass."""
        parameters, events = start
        return cls(
            parameters,
            parameters,
            previous,
            events=events,
            trajectory=(parameters,),
            is_rough=is_rough,
        )

    @property
    def n_passes(self) -> int:
        """Passes so far, those that were taken back among them."""
        return len(self.lower_bounds) + self.n_taken_back

    @property
    def last_bound(self) -> float:
        """Log-likelihood per row of the last pass that counts."""
        return self.lower_bounds[-1] if self.lower_bounds else self.previous

    def is_over(self, max_iter: int) -> bool:
        """Whether no pass is left to make."""
        return self.settled_within_tol or self.n_passes >= max_iter

    def is_worse(self, bound: float) -> bool:
        """Whether the pass shows that its state was extrapolated for nothing."""
        return self.parameters is not self.settled and not bound >= self.last_bound

    def taken_back(self) -> State:
        """The state after such a pass: that of the last M-step, without steps to extrapolate."""
        return replace(
            self,
            parameters=self.settled,
            n_taken_back=self.n_taken_back + 1,
            history=NOTHING,
            trajectory=(*self.trajectory[:-1], self.settled),
        )

    def seen(self, statistics: SufficientStatistics) -> State:
        """The state with the number and the weight of the rows that the pass looked at."""
        return replace(self, n_rows=statistics.n_rows, sum_weight=statistics.sum_weight)

    def advanced(self, bound: float, step: Step, tol: float, *, accelerate: bool) -> State:
        """After a pass that counts; rough ones are over where they settle, and the fit is not."""
        settled, events = step
        calm = not any(event.pass_number == self.n_passes + 1 for event in events)
        calm = calm and settled.n_components == self.parameters.n_components
        change = bound - self.last_bound
        settles = calm and (change if self.is_rough else abs(change)) < tol
        settles = settles and _noise_change(self.settled, settled) < NOISE_TOL
        history, ahead = NOTHING, None
        if accelerate and calm and not settles:
            history = self.history.after(self.parameters, settled)
            ahead = history.extrapolated()
        parameters = settled if ahead is None else replace(ahead, noise=settled.noise)
        return State(
            parameters,
            settled,
            self.previous,
            (*self.lower_bounds, bound),
            self.n_taken_back,
            events,
            history,
            _latest((*self.trajectory, parameters)),
            settles and not self.is_rough,
            self.n_rows,
            self.sum_weight,
            self.is_rough and not settles,
            self.search,
            self.prelude,
        )


@dataclass(frozen=True, eq=False)
class Progress:
    """A fit from several starts between two passes: the start under way, and the results before it.

    Parameters
    ----------
    start : int
        The number of the initialisation under way, from 1.
    state : State
        The state of its fit.
    finished : tuple of FitResult
        The results of the starts before, in their order.
    n_to_come : int
        Starts after this one.
    """

    start: int
    state: State
    finished: tuple[FitResult, ...] = ()
    n_to_come: int = 0

    @property
    def n_passes(self) -> int:
        """Passes over the data so far, in all starts."""
        return self.state.n_passes + sum(result.n_passes for result in self.finished)

    @property
    def best(self) -> FitResult | None:
        """The best of the finished starts; None where this is the first."""
        return best_of(list(self.finished)) if self.finished else None

    def is_over(self, max_iter: int) -> bool:
        """Whether no pass is left to make."""
        return self.n_to_come == 0 and self.state.is_over(max_iter)


Keeper = Callable[[Progress], None]


def _noise_change(before: Parameters, after: Parameters) -> float:
    """How much the share of noise changed; 0 where there is none."""
    if before.noise is None or after.noise is None:
        return 0.0
    return abs(after.noise.share - before.noise.share)


def _latest(trajectory: tuple[Parameters, ...]) -> tuple[Parameters, ...]:
    kept = max(2, TRAJECTORY_BYTES // statistics_bytes(trajectory[-1]))
    return trajectory[-kept:]
