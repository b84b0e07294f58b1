"""Where a fit from several starts is between two passes: all that is needed to go on with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gmm_dask.fitting.outcome import FitResult, best_of
from gmm_dask.fitting.state import State


@dataclass(frozen=True, eq=False)
class Standing:
    """The start under way, and what the ones before it came to.

    Parameters
    ----------
    start : int
        Which initialisation is under way, from 1.
    state : State
        Of its fit.
    finished : tuple of FitResult
        Of the starts before, in their order.
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


Keeper = Callable[[Standing], None]
