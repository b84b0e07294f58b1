"""The start that a search on a sample finds, and what the search has to show for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting.events import Action, Event
from gmm_dask.fitting.initialize import Prepared
from gmm_dask.fitting.m_step import Maximisation, Step
from gmm_dask.fitting.outcome import Report, SearchRecord, unheard
from gmm_dask.fitting.search.ground import FAMILIES, MATRICES, Frame, Ground
from gmm_dask.fitting.search.marks import Judge, Mark
from gmm_dask.fitting.search.rounds import (
    EFFORTS,
    LONG,
    SAME,
    SETTLED,
    Effort,
    Optimum,
    Search,
)
from gmm_dask.fitting.search.views import Views
from gmm_dask.mixture import Cause
from gmm_dask.mixture.parameters import n_free_parameters

Array = npt.NDArray[np.float64]

SEARCHED_ROWS = 5000  # of a sample, on which basins are told apart
ROWS_EACH = 40  # and so many at least for each free parameter
FOLLOWED = 3  # optima that are followed to their ends on all rows of the sample
SLOWER = 8  # times fewer passes where they do not go through the core

CAUSES = {
    Mark.ROWS: Cause.FEW_ROWS,
    Mark.THIN: Cause.THIN,
    Mark.FLOOR: Cause.HELD_UP,
    Mark.TIE: Cause.TIED_VALUES,
}


class Found(NamedTuple):
    """What a search found: where to start, and its record."""

    start: Step
    record: SearchRecord | None


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a search.

    Parameters
    ----------
    ready : Prepared
    n_rows : int
        Before equal ones were counted as one.
    threads : int
        That candidates may be advanced in; the results have the same bits for any number.
    """

    ready: Prepared
    n_rows: int
    threads: int = 1


def best_start(
    rows: Rows,
    k: int,
    covariance_type: str,
    guard: Maximisation,
    seed: np.random.SeedSequence,
    effort: str,
    report: Report = unheard,
) -> Found | None:
    """The best admissible optimum on the rows; None where nothing was found that is a mixture.

    Parameters
    ----------
    rows : Rows
    k : int
    covariance_type : str
    guard : Maximisation
        Of the fit that goes on from there.
    seed : numpy.random.SeedSequence
    effort : {"low", "medium", "high"}
    report : Report
        Hears how many passes over the rows are spent.
    """
    if covariance_type not in FAMILIES or len(rows.ready.sample) <= k:
        return None
    with np.errstate(all="ignore"):  # what is no number any more is no candidate
        try:
            ground, standard = _ground(rows, covariance_type, guard)
            spent = EFFORTS[effort] if ground.is_quick else EFFORTS[effort].by(SLOWER)
            return _found(ground, standard, k, spent, seed, report)
        except (np.linalg.LinAlgError, SingularCovarianceError):
            return None


def _ground(rows: Rows, covariance_type: str, guard: Maximisation) -> tuple[Ground, Array]:
    ready = rows.ready
    X, weight, standard = ready.sample, ready.weight, ready.standard
    if weight is None:
        weight = None if len(X) == rows.n_rows else np.full(len(X), rows.n_rows / len(X))
    else:
        weight = weight * (rows.n_rows / weight.sum())
    frame = Frame.of(X, weight, covariance_type)
    if not (np.isfinite(frame.T).all() and np.isfinite(frame.inverse).all()):
        raise np.linalg.LinAlgError("the columns are beyond float64")
    if covariance_type in MATRICES:
        # An order that no linear map of the data changes: draws by number find the same rows.
        order = np.argsort((frame.rows(X) ** 2).sum(axis=1).round(9), kind="stable")
        X, standard = X[order], standard[order]
        weight = None if weight is None else weight[order]
    ground = Ground(X, weight, covariance_type, guard, frame, rows.threads)
    return ground, np.nan_to_num(standard, nan=0.0)


def _found(
    ground: Ground,
    standard: Array,
    k: int,
    effort: Effort,
    seed: np.random.SeedSequence,
    report: Report,
) -> Found | None:
    n_parameters = n_free_parameters(ground.covariance_type, k, ground.X.shape[1])
    few = max(SEARCHED_ROWS, ROWS_EACH * n_parameters)
    quick, chosen = ground, np.arange(len(ground.X))
    if few < len(ground.X) // 2:
        quick, chosen = ground.part(few)
    search = Search(quick, Views(quick, standard[chosen]), k, effort, seed, report)
    optima, spent = search.run(), search.spent * len(quick.X) / len(ground.X)
    if quick is not ground:
        optima, more = _followed(ground, optima)
        spent += more
    if not optima:
        return None
    best = optima[0]
    start = Step(ground.parameters(best.candidate), _events(best, ground))
    others = [
        each
        for each in optima[1:]
        if best.candidate.log_likelihood != each.candidate.log_likelihood
    ]
    difference = None
    if others:
        total = 1.0 if ground.guard.spread is None else float(ground.guard.spread.weight.max())
        unit = total * ground.guard.unit / ground.n_rows
        rival = max(others, key=lambda each: each.rank)
        difference = (best.candidate.log_likelihood - rival.candidate.log_likelihood) * unit
        difference = difference if math.isfinite(difference) else None
    record = SearchRecord(
        search.n_starts, len(best.lines), difference, math.ceil(spent), effort.passes
    )
    return Found(start, record)


def _followed(ground: Ground, optima: Sequence[Optimum]) -> tuple[list[Optimum], float]:
    """The first of the optima on all rows of the sample, the best first; and passes made."""
    judge, spent, ended = Judge.of(ground), 0.0, []
    for optimum in optima[:FOLLOWED]:
        begun = replace(optimum.candidate, rows=None)
        for found in ground.climb([begun], LONG, tol=SETTLED, accelerate=True):
            spent += found.n_passes
            sound = not judge.marks(found)
            ended.append(replace(optimum, candidate=found, is_admissible=sound))
    ended.sort(key=lambda each: each.rank, reverse=True)
    different: list[Optimum] = []
    for each in ended:
        near = [
            one
            for one in different
            if abs(one.candidate.log_likelihood - each.candidate.log_likelihood) < SAME
        ]
        if near:
            merged = replace(near[0], lines=near[0].lines | each.lines)
            different[different.index(near[0])] = merged
        else:
            different.append(each)
    return different, spent


def _events(best: Optimum, ground: Ground) -> tuple[Event, ...]:
    """An event for each spurious component, where every optimum that was found has some."""
    guard, tied = ground.guard, ground.covariance_type == "tied"
    if best.is_admissible:
        return ()
    return tuple(
        Event(0, None if tied else j, CAUSES[mark], Action.LEFT, (), 0, guard.start)
        for j, mark in Judge.of(ground).marks(best.candidate)
    )


def rows_of(ready: Prepared, sample: npt.NDArray[Any], threads: int) -> Rows:
    """The prepared rows of a sample."""
    return Rows(ready, len(sample), threads)
