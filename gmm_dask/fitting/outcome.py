"""How a fit ended, and what is told of each of its passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from gmm_dask.fitting.events import Event
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.statistics import statistics_bytes

PRELUDE_STATES, PRELUDE_BYTES = 40, 1 << 20  # that are kept, and written with each checkpoint


class Outcome(StrEnum):
    """How a fit ended; each value is one ending."""

    CONVERGED = "converged"
    OUT_OF_ITERATIONS = "out_of_iterations"
    REFRESHED = "refreshed"
    POLISHED = "polished"

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
    Outcome.REFRESHED: (
        "One step from sums of which only those of new and changed partitions were made anew; "
        "refresh.polish adds passes over all rows."
    ),
    Outcome.POLISHED: (
        "All passes of refresh.polish were made before the log-likelihood settled: raise it, or "
        "let the next refresh go on."
    ),
}


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over the data, as told to whoever watches the fit.

    Parameters
    ----------
    start, number : int
        The numbers of the initialisation and of its pass, both from 1.
    lower_bound : float
        Mean log-likelihood per row under `parameters`, the state the pass started from; with a
        prior, of the posterior.
    change : float
        Difference from the pass before; infinite in the first.
    seconds : float
        Wall time of the E-step.
    n_rows : int
        Rows used.
    parameters : Parameters
    events : tuple of Event
        What began to be done to components after this pass.
    taken_back : bool
        The state was extrapolated and is worse than the one before: the fit goes on from the
        M-step that the extrapolation was to improve on.
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


class Report(Protocol):
    """Hears how far something is that may take more than a second."""

    def __call__(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """Be told.

        Parameters
        ----------
        phase : str
            What is done, in words that stay the same while it is done.
        done : int
        of : int, optional
            How much there is of it at most, if that is known.
        note : str
            What else is worth a word.
        """


def unheard(phase: str, done: int, of: int | None = None, note: str = "") -> None:
    """A Report that nobody reads."""


@dataclass(frozen=True)
class SearchRecord:
    """What a search for the best start found on the sample of rows, and what it spent.

    Parameters
    ----------
    n_starts : int
    n_replicated : int
        Starts that led to the best log-likelihood.
    runner_up_difference : float or None
        By how much the next best optimum is lower in log-likelihood, in all rows' weight; None
        where no other was found.
    n_passes, budget : int
        Over the rows of the sample: those that were made, and those that there were for it.
    """

    n_starts: int
    n_replicated: int
    runner_up_difference: float | None
    n_passes: int
    budget: int

    @property
    def message(self) -> str:
        """The record as a sentence without its end."""
        starts = "start" if self.n_starts == 1 else "starts"
        found = f"best log-likelihood reached by {self.n_replicated} of {self.n_starts} {starts}"
        if self.runner_up_difference is None:
            return f"{found}; no other optimum was found"
        lower = self.runner_up_difference
        if lower < 0:  # a spurious one, which is not chosen
            return f"{found}; the next has spurious components and is {-lower:.1f} higher"
        return f"{found}; next best {lower:.1f} lower"

    @property
    def sentence(self) -> str:
        """The message with a capital and its end."""
        return f"{self.message[0].upper()}{self.message[1:]}."

    def to_dict(self) -> dict[str, Any]:
        """For a JSON document."""
        return asdict(self) | {"message": self.message}


@dataclass(frozen=True, eq=False)
class Prelude:
    """The passes over a sample that a fit over all rows goes on from, to be drawn.

    Parameters
    ----------
    lower_bounds : tuple of float
        The lower bounds of all passes.
    numbers : tuple of int
        The numbers of the passes whose states are remembered, from 1.
    trajectory : tuple of Parameters
        These states.
    """

    lower_bounds: tuple[float, ...]
    numbers: tuple[int, ...]
    trajectory: tuple[Parameters, ...]

    @classmethod
    def of(cls, *results: FitResult) -> Prelude:
        """The prelude of fits made one after the other; of early passes more states are kept."""
        bounds: list[float] = []
        states: list[tuple[int, Parameters]] = []
        for result in results:
            path = result.trajectory[:-1]
            first = len(bounds) + len(result.lower_bounds) - len(path) + 1
            states += enumerate(path, start=first)
            bounds += result.lower_bounds
        size = statistics_bytes(results[-1].parameters)
        n = min(len(states), PRELUDE_STATES, PRELUDE_BYTES // size)
        places = {round((len(states) - 1) * (i / max(1, n - 1)) ** 1.5) for i in range(n)}
        chosen = [states[place] for place in sorted(places)]
        return cls(
            tuple(bounds),
            tuple(number for number, _ in chosen),
            tuple(parameters for _, parameters in chosen),
        )


@dataclass(frozen=True, eq=False)
class FitResult:
    """A finished fit.

    Parameters
    ----------
    parameters : Parameters
        After the last M-step.
    lower_bounds : tuple of float
        Mean log-likelihood per row, pass by pass, without the passes that were taken back.
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
        Passes in which an extrapolation was tried for nothing.
    start : int
        The number of the initialisation, from 1.
    search : SearchRecord, optional
        The record of the search that found the start, where there was one.
    prelude : Prelude, optional
        The passes over a sample before these.
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
    search: SearchRecord | None = None
    prelude: Prelude | None = None

    @property
    def converged(self) -> bool:
        """Whether the log-likelihood settled within tol."""
        return self.outcome is Outcome.CONVERGED

    @property
    def n_passes(self) -> int:
        """Passes over the data."""
        return len(self.lower_bounds) + self.n_taken_back


def best_of(results: list[FitResult]) -> FitResult:
    """The result of largest final log-likelihood; the earliest of equals."""
    return max(results, key=lambda result: result.lower_bounds[-1] if result.n_passes else 0.0)
