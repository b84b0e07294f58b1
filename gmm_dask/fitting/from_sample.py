"""From a sample of the rows to a fit over all of them: starts, EM on the sample, EM on all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gmm_dask.fitting.em import Expectation, Fit, go_on
from gmm_dask.fitting.events import Event
from gmm_dask.fitting.initial.initial_values import Given
from gmm_dask.fitting.m_step import Maximisation
from gmm_dask.fitting.outcome import FitResult, Report, Watcher, unheard
from gmm_dask.fitting.sample import Method, Sample, rule_of
from gmm_dask.fitting.starts import Starts
from gmm_dask.fitting.state import Keeper, Progress, State


def fit_from_sample(
    sample: Sample,
    expectation: Expectation,
    method: Method,
    guards: Sequence[Maximisation],
    seeds: Sequence[np.random.SeedSequence],
    *,
    rough: Expectation | None = None,
    given: Given | None = None,
    watch: Watcher | None = None,
    tell: Callable[[tuple[Event, ...]], None] | None = None,
    report: Report = unheard,
    keep: Keeper | None = None,
    progress: Progress | None = None,
) -> list[FitResult]:
    """A fit over all rows from each start, or from the one that is best on the sample.

    Parameters
    ----------
    guards, seeds : one for each start
        The guards are numbered from 1.
    rough : parameters -> statistics, optional
        The same as for `go_on`.
    given : Given, optional
        Initial values of the user, from which the sample does not lead away.
    tell : callable, optional
        Called with the events of each start.
    report : Report
        Called with how far the starts are.
    keep : callable, optional
        Called with what it takes to go on, before the first pass of a start and after each pass.
    progress : Progress, optional
        How far an earlier call with the same arguments came: the results are those that it would
        have had, but for the trajectories of finished starts other than the best.

    Raises
    ------
    As `initialize` and `fit`.
    """
    starts, rule = Starts(sample, method, given or Given(), report), rule_of(sample, method)
    results = [] if progress is None else list(progress.finished)
    for state, guard in starts.begun(guards, seeds, progress):
        if state.n_passes == 0:
            state = replace(state, is_rough=rough is not None)
            if tell is not None:
                tell(state.events)
        to_come = 0 if starts.one_goes_on else len(guards) - guard.start
        results.append(
            go_on(
                expectation,
                Fit(state, guard, rule),
                rough=rough,
                watch=watch,
                keep=_kept(keep, guard.start, tuple(results), to_come),
            )
        )
    return results


def fits_to_come(
    sample: Sample,
    method: Method,
    guards: Sequence[Maximisation],
    seeds: Sequence[np.random.SeedSequence],
    *,
    report: Report = unheard,
    is_rough: bool = False,
) -> list[Fit]:
    """The fits that `fit_from_sample` makes one after the other, before their first passes."""
    starts, rule = Starts(sample, method, Given(), report), rule_of(sample, method)
    return [
        Fit(replace(state, is_rough=is_rough), guard, rule)
        for state, guard in starts.begun(guards, seeds, None)
    ]


def _kept(
    keep: Keeper | None, start: int, finished: tuple[FitResult, ...], n_to_come: int
) -> Callable[[State], None] | None:
    if keep is None:
        return None
    return lambda state: keep(Progress(start, state, finished, n_to_come))
