"""EM on a sample before the first pass over all rows: what it settles there, no pass has to."""

from __future__ import annotations

from dataclasses import replace

from gmm_dask.fitting.components import Event, Maximisation, Step
from gmm_dask.fitting.em import Expectation, fit
from gmm_dask.fitting.outcome import FitResult

FINER = 0.01  # of tol: a pass over the sample costs next to nothing
MAX_PASSES = 300
SHORT = 10  # passes that tell a good start from a poor one


def refine(
    sample_expectation: Expectation, start: Step, maximise: Maximisation, *, tol: float
) -> FitResult:
    """EM on the sample alone, as far as it goes; a fit over all rows starts from what it found.

    Parameters
    ----------
    sample_expectation : parameters -> statistics
        A pass over the sample, whose weights add up to those of all rows: so a prior counts for
        as much as it will later.
    start : Step
    maximise : Maximisation
    tol : float
        Of the fit to follow; here a hundredth of it is asked for.

    Raises
    ------
    As `fit`.
    """
    return _run(sample_expectation, start, maximise, FINER * tol, MAX_PASSES, accelerate=True)


def short_run(sample_expectation: Expectation, start: Step, maximise: Maximisation) -> FitResult:
    """A few passes of plain EM on the sample; the last bound tells how good the start is.

    Raises
    ------
    As `fit`.
    """
    return _run(sample_expectation, start, maximise, 0.0, SHORT, accelerate=False)


def _run(
    expectation: Expectation,
    start: Step,
    maximise: Maximisation,
    tol: float,
    max_iter: int,
    *,
    accelerate: bool,
) -> FitResult:
    found = fit(
        expectation,
        start.parameters,
        maximise,
        tol=tol,
        max_iter=max_iter,
        accelerate=accelerate,
        events=start.events,
    )
    return replace(found, events_=_at_start(found))


def _at_start(found: FitResult) -> tuple[Event, ...]:
    """What was done to components, as the events of a start: each once, whatever the pass."""
    events = (replace(event, pass_number=0, until=0) for event in found.events_)
    return tuple(dict.fromkeys(events))
