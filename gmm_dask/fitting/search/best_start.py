"""The start that a search on a sample finds, and what the search has to show for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting.events import Action, Event
from gmm_dask.fitting.initial.initialize import Prepared
from gmm_dask.fitting.initial.kmeans import nearest
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
from gmm_dask.mixture.core.climb import can_climb
from gmm_dask.mixture.parameters import n_free_parameters

Array = npt.NDArray[np.float64]

# Rows for each free parameter, with fewer of which the likelihood says more about single rows than
# about clusters: the best optimum of 1,600 rows in 100 columns parts two clusters six standard
# deviations apart in another way.
LEAST_ROWS = 0.2
PASS_COST = 7e4  # multiplications of a pass, over which a search makes fewer of them
SEARCHED_ROWS = 5000  # of a sample, on which basins are told apart
ROWS_EACH = 20  # and so many at least for each free parameter
GLANCED_ROWS, GLANCED_EACH = 1000, 4  # that may show already how the rows are plainly parted
ROUNDS_OF_MANY = 3  # at most where the rows are many: what is best on a part of them is a guess
FOLLOWED = 4  # optima that are followed on the rows as they are
NEARLY = 25  # passes over many rows that tell which is best; EM on the sample goes on from there
SLOWER = 8  # times fewer passes where they do not go through the core
DONORS = 2048  # complete rows that stand in for what others miss

CAUSES = {
    Mark.ROWS: Cause.FEW_ROWS,
    Mark.THIN: Cause.THIN,
    Mark.FLOOR: Cause.HELD_UP,
    Mark.TIE: Cause.TIED_VALUES,
}


class Found(NamedTuple):
    """What a search found: where to start, its record, and whether it was plain that this is it."""

    start: Step
    record: SearchRecord | None
    is_plain: bool = False


def best_start(
    ready: Prepared,
    k: int,
    covariance_type: str,
    guard: Maximisation,
    seed: np.random.SeedSequence,
    effort: str,
    threads: int = 1,
    report: Report = unheard,
) -> Found | None:
    """The best admissible optimum on the rows; None where nothing was found that is a mixture.

    Parameters
    ----------
    ready : Prepared
    k : int
    covariance_type : str
    guard : Maximisation
        M-step of the fit that goes on from the start.
    seed : numpy.random.SeedSequence
    effort : {"low", "medium", "high"}
    threads : int
        Threads that candidates may be advanced in; the results have the same bits for any number.
    report : Report
    """
    if covariance_type not in FAMILIES or not has_rows(ready, k, covariance_type):
        return None
    with np.errstate(all="ignore"):  # what is no number any more is no candidate
        try:
            ground, standard = ground_of(ready, covariance_type, guard, threads)
            return _found(ground, standard, k, EFFORTS[effort], seed, report)
        except (np.linalg.LinAlgError, SingularCovarianceError):
            return None


def has_rows(ready: Prepared, k: int, covariance_type: str) -> bool:
    """Whether there are so many rows that their likelihood says something of clusters."""
    return are_enough(ready.sample.shape, k, covariance_type)


def are_enough(shape: tuple[int, int], k: int, covariance_type: str) -> bool:
    """Whether the likelihood of m rows of d columns says something of k clusters."""
    m, d = shape
    return bool(m > max(k, LEAST_ROWS * n_free_parameters(covariance_type, k, d)))


def ground_of(
    ready: Prepared, covariance_type: str, guard: Maximisation, threads: int
) -> tuple[Ground, Array]:
    """The rows to search on as they are, and on standardised columns."""
    X, weight, standard = ready.sample, ready.weight, ready.standard
    if weight is not None:  # of one on average: neither their unit nor repeated rows are told
        weight = weight * (len(X) / weight.sum())
    frame = Frame.of(X, weight, covariance_type)
    if not (np.isfinite(frame.T).all() and np.isfinite(frame.inverse).all()):
        raise np.linalg.LinAlgError("the columns are beyond float64")
    ground = Ground(X, weight, covariance_type, guard, frame, threads)
    if covariance_type not in MATRICES:
        return ground, standard
    # An order that no linear map of the data changes: draws by number find the same rows.
    ground, order = ground.ordered()
    return ground, standard[order]


def _found(
    ground: Ground,
    standard: Array,
    k: int,
    effort: Effort,
    seed: np.random.SeedSequence,
    report: Report,
) -> Found | None:
    """Optima are looked for where passes are quick, and followed on the rows as they are."""
    n_rows = rows_looked_at(ground, k, effort)
    if not are_enough((n_rows, ground.X.shape[1]), k, ground.covariance_type):
        return None  # there are rows enough, but too few of them can be gone over again and again
    quick, standard = looked_at(ground, standard, n_rows)
    how = (k, affordable(effort, ground, k, n_rows), seed, report)
    search = plain_search(quick, standard, *how)
    if search is None:
        is_rough = len(quick.X) < len(ground.X)
        search = Search(quick, Views(quick, standard), *how, is_rough=is_rough)
        search.run()
    return end_of(search, ground)


def rows_looked_at(ground: Ground, k: int, effort: Effort) -> int:
    """How many rows a search looks at; where there are hardly twice as many, it looks at all."""
    few = min(ROWS_EACH * _n_parameters(ground, k), _affordable_rows(ground, k, effort))
    return min(max(SEARCHED_ROWS, few), len(ground.X))


def _n_parameters(ground: Ground, k: int) -> int:
    return n_free_parameters(ground.covariance_type, k, ground.X.shape[1])


def looked_at(ground: Ground, standard: Array, n_rows: int) -> tuple[Ground, Array]:
    """About so many of the rows, and these on standardised columns.

    Where the core climbs they have no missing values.
    """
    quick = ground
    if can_climb(ground.covariance_type) and not ground.is_quick:
        guard = replace(ground.guard, prior=None, eigenvalue_ratio=None)
        quick = replace(ground, X=_filled(ground.X, standard), guard=guard)
    if n_rows < len(ground.X) // 2:
        quick, chosen = quick.part(n_rows)
        standard = standard[chosen]
    return quick, np.nan_to_num(standard)


def end_of(search: Search, ground: Ground, n_followed: int = FOLLOWED) -> Found | None:
    """What the best optima of a search come to on the rows as they are; None where it has none."""
    optima, quick = search.optima, search.ground
    spent = search.spent * len(quick.X) / len(ground.X)
    difference = _difference(optima, quick)
    if quick is not ground:
        n_steps = NEARLY if len(quick.X) < len(ground.X) else LONG
        if search.is_plain:  # the others are known to be lower
            n_followed = 1
        tol = search.settled if search.is_plain else SETTLED
        optima, more = _followed(ground, optima[:n_followed], n_steps, tol)
        spent += more
        if n_followed > 1:
            difference = _difference(optima, ground)
    if not optima:
        return None
    start, passes = _start(optima[0], ground), math.ceil(spent)
    n_again, budget = len(optima[0].lines), search.effort.passes
    record = SearchRecord(search.n_starts, n_again, difference, passes, budget)
    return Found(start, record, search.is_plain)


def plain_search(
    quick: Ground,
    standard: Array,
    k: int,
    effort: Effort,
    seed: np.random.SeedSequence,
    report: Report,
) -> Search | None:
    """The search on a few of many rows, where that is all it takes, as they are plainly parted."""
    few = max(GLANCED_ROWS, GLANCED_EACH * _n_parameters(quick, k))
    if few >= len(quick.X) // 2:
        return None
    part, chosen = quick.part(few)
    views = Views(part, standard[chosen])
    search = Search(part, views, k, effort, seed, report, is_rough=True)
    return search if search.is_plain else None


def _row_cost(ground: Ground, k: int) -> int:
    """Multiplications that a row costs in a pass, half of the E-step's and half of the sums'."""
    d = int(ground.X.shape[1])
    return k * d * (d if ground.covariance_type in MATRICES else 1)


def _affordable_rows(ground: Ground, k: int, effort: Effort) -> int:
    """Rows that a search can go over in its fewest passes."""
    return int(effort.passes * PASS_COST / _row_cost(ground, k))


def affordable(effort: Effort, ground: Ground, k: int, n_rows: int) -> Effort:
    """The effort with fewer passes where they are dear: of many columns or components."""
    effort = _cheaper(effort, ground, k, n_rows)
    if not can_climb(ground.covariance_type):
        effort = effort.by(SLOWER)
    if n_rows < len(ground.X) // 2:
        effort = replace(effort, n_rounds=min(effort.n_rounds, ROUNDS_OF_MANY))
    return effort


def _cheaper(effort: Effort, ground: Ground, k: int, n_rows: int) -> Effort:
    low = EFFORTS["low"]
    passes = int(effort.passes * math.sqrt(PASS_COST / (n_rows * _row_cost(ground, k))))
    if passes >= effort.passes:
        return effort
    if passes <= 4 * low.passes:
        return replace(low, passes=max(passes, low.passes))
    share = math.sqrt(passes / effort.passes)
    return replace(
        effort,
        passes=passes,
        n_starts=max(low.n_starts, int(share * effort.n_starts)),
        n_swaps=max(low.n_swaps, int(share * effort.n_swaps)),
        n_followed=max(2, int(share * effort.n_followed)),
    )


def _difference(optima: Sequence[Optimum], ground: Ground) -> float | None:
    """By how much the second optimum is lower than the first, in all rows' weight."""
    if len(optima) < 2:
        return None
    spread = ground.guard.spread
    total = ground.n_rows if spread is None else float(spread.weight.max()) * spread.unit
    lower = optima[0].candidate.log_likelihood - optima[1].candidate.log_likelihood
    difference = lower * (total / ground.n_rows)
    return difference if math.isfinite(difference) else None


def _filled(X: Array, standard: Array) -> Array:
    """The rows with each missing value that of the nearest complete row, or else the mean.

    Nearest by the values that are there, on standardised columns (hot deck; Little and Rubin 2002,
    Statistical Analysis with Missing Data, 4.3.2).
    """
    absent = np.isnan(X)
    donors = np.flatnonzero(~absent.any(axis=1))
    donors = donors[:: max(1, len(donors) // DONORS)]
    means = np.nan_to_num(np.nanmean(X, axis=0))
    found = np.where(absent, means, X)
    if not len(donors):
        return found
    for pattern in np.unique(absent[absent.any(axis=1)], axis=0):
        rows, there = np.flatnonzero((absent == pattern).all(axis=1)), ~pattern
        if there.any():
            near = nearest(standard[rows][:, there], standard[donors][:, there])
            found[np.ix_(rows, pattern)] = X[donors[near]][:, pattern]
    return found


def _followed(
    ground: Ground, optima: Sequence[Optimum], n_steps: int, tol: float
) -> tuple[list[Optimum], float]:
    """The first of the optima on the rows as they are, the best first; and passes made."""
    judge, first = Judge(ground), optima
    begun = [replace(each.candidate, rows=None, line=i) for i, each in enumerate(first)]
    ended = ground.climb(begun, n_steps, tol=tol, accelerate=True)
    found = [
        replace(first[each.line], candidate=each, n_marked=judge.n_marked(each)) for each in ended
    ]
    found.sort(key=lambda each: each.rank, reverse=True)
    different: list[Optimum] = []
    for each in found:
        level = each.candidate.log_likelihood
        near = [one for one in different if abs(one.candidate.log_likelihood - level) < SAME]
        if near:
            merged = replace(near[0], lines=near[0].lines | each.lines)
            different[different.index(near[0])] = merged
        else:
            different.append(each)
    return different, float(sum(each.n_passes for each in ended))


def _start(best: Optimum, ground: Ground) -> Step:
    """The mixture, with an event for each spurious component where every optimum has some.

    The largest component comes first, so that it does not matter which start led there.
    """
    parameters, guard = ground.parameters(best.candidate), ground.guard
    order = np.lexsort((*parameters.means.T[::-1], -parameters.weights.round(9)))
    places, tied = np.argsort(order), ground.covariance_type == "tied"
    marks = [] if best.is_admissible else Judge(ground).marks(best.candidate)
    events = tuple(
        Event(0, None if tied else int(places[j]), CAUSES[mark], Action.LEFT, (), 0, guard.start)
        for j, mark in marks
    )
    return Step(parameters.take(order), events)
