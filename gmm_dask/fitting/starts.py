"""From a sample of the rows to a fit over all of them: starts, EM on the sample, EM on all."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.components import IN_TROUBLE, Event, Maximisation, Step
from gmm_dask.fitting.em import Expectation, Fit, Rule, go_on
from gmm_dask.fitting.given import Given
from gmm_dask.fitting.initialize import Prepared, initialize, prepare
from gmm_dask.fitting.outcome import FitResult, Watcher, best_of
from gmm_dask.fitting.refine import refine, short_run
from gmm_dask.fitting.standing import Keeper, Standing
from gmm_dask.fitting.state import State
from gmm_dask.mixture import n_free_parameters

TRIES = 8  # starts on the sample, all but the first of them for a few passes
TELLING_ROWS, TELLING_VALUES = 2048, 4  # for a component at least, and for each of its parameters
ALLOWANCE = 1.5  # rows beyond those that are enough on average
ACCELERATIONS = ("auto", "anderson", "none")

ShortRuns = Callable[[Maximisation, np.random.SeedSequence], Iterator[FitResult]]


@dataclass(frozen=True)
class Method:
    """How to fit; scikit-learn's names and meanings, and two switches that save passes.

    Parameters
    ----------
    n_components : int
    covariance_type, init_params : str
    tol : float
    max_iter : int
    sample_em : bool
        Run EM on the sample first, where that is not all rows, from TRIES starts.
    acceleration : {"auto", "anderson", "none"}
        auto extrapolates where the sample is not all rows: where a pass is dear.
    """

    n_components: int
    covariance_type: str
    init_params: str
    tol: float
    max_iter: int
    sample_em: bool
    acceleration: str

    def accelerates(self, is_part: bool) -> bool:
        """Whether passes are extrapolated from, where the sample is a part of the rows or all."""
        return is_part if self.acceleration == "auto" else self.acceleration == "anderson"


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that starts are found on.

    Parameters
    ----------
    X : (m, d)
    weight : (m,), optional
    expectation : parameters -> statistics, optional
        A pass over them, their weights adding up to those of all rows; None where they are all.
    part : Sample, optional
        Fewer of these rows, on which starts are compared.
    on_larger : parameters -> statistics, optional
        A pass over a larger sample, on which the start that goes on settles once more.
    """

    X: npt.NDArray[Any]
    weight: npt.NDArray[Any] | None
    expectation: Expectation | None
    part: Sample | None = None
    on_larger: Expectation | None = None


def telling_rows(n_components: int, n_features: int) -> int:
    """Rows of a sample that tell a good start from a poor one, where none is starved."""
    n_parameters = n_features * (n_features + 3) // 2
    return n_components * max(TELLING_ROWS, TELLING_VALUES * n_parameters)


def settling_rows(method: Method, n_features: int) -> int:
    """Rows of a sample from whose maximum the first step over all rows gains less than `tol`.

    A maximum of m rows is, with p free parameters, p / 2m a row below that of all (half a
    chi-square of p degrees; Wilks 1938, Ann. Math. Stat. 9); a half more is for chance. 0 where no
    EM on a sample is asked for, or no sample is large enough.
    """
    if not method.sample_em or method.max_iter == 0 or method.tol == 0:
        return 0
    p = n_free_parameters(method.covariance_type, method.n_components, n_features)
    return math.ceil(min(ALLOWANCE * p / (2 * method.tol), sys.maxsize))


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
    keep: Keeper | None = None,
    standing: Standing | None = None,
) -> list[FitResult]:
    """A fit over all rows from each start, or from the one that is best on the sample.

    Parameters
    ----------
    guards, seeds : one for each start
        The guards numbered from 1.
    rough : parameters -> statistics, optional
        As for `go_on`.
    given : Given, optional
        Start values of the user, from which the sample does not lead away.
    tell : callable, optional
        Hears of the events of the starts.
    keep : callable, optional
        Handed what it takes to go on, before the first pass of a start and after every pass.
    standing : Standing, optional
        Where an earlier call with the same arguments was: the results are those that it would
        have had, but for the trajectories of finished starts other than the best.

    Raises
    ------
    As `initialize` and `fit`.
    """
    is_part, free = sample.expectation is not None, given is None or given == Given()
    one_goes_on = is_part and free and method.sample_em and method.max_iter > 0
    rule = Rule(method.tol, method.max_iter, method.accelerates(is_part))
    begun = _begun(sample, method, guards, seeds, given, one_goes_on, standing)
    results = [] if standing is None else list(standing.finished)
    for state, guard in begun:
        if state.n_passes == 0:
            state = replace(state, is_rough=rough is not None)
            if tell is not None:
                tell(state.events)
        to_come = 0 if one_goes_on else len(guards) - guard.start
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


def _begun(
    sample: Sample,
    method: Method,
    guards: Sequence[Maximisation],
    seeds: Sequence[np.random.SeedSequence],
    given: Given | None,
    one_goes_on: bool,
    standing: Standing | None,
) -> Iterator[tuple[State, Maximisation]]:
    """Each fit over all rows where it stands: the one under way first, then those to come."""
    done = 0
    if standing is not None:
        done = len(guards) if one_goes_on else standing.start
        yield standing.state, guards[standing.start - 1]
    chosen: Iterator[tuple[Step, Maximisation]] = (
        (_start(sample, method, guard, seed, given), guard)
        for guard, seed in zip(guards[done:], seeds[done:], strict=True)
    )
    if one_goes_on and standing is None:
        chosen = iter([_best_on_sample(sample, method, guards, seeds, given)])
    for start, guard in chosen:
        yield State.begin(start), guard


def _kept(
    keep: Keeper | None, start: int, finished: tuple[FitResult, ...], n_to_come: int
) -> Callable[[State], None] | None:
    if keep is None:
        return None
    return lambda state: keep(Standing(start, state, finished, n_to_come))


def _start(
    sample: Sample,
    method: Method,
    guard: Maximisation,
    seed: np.random.SeedSequence,
    given: Given | None,
    ready: Prepared | None = None,
) -> Step:
    return initialize(
        sample.X,
        method.n_components,
        method.covariance_type,
        guard,
        init_params=method.init_params,
        seed=seed,
        sample_weight=sample.weight,
        given=given,
        ready=ready,
    )


def _best_on_sample(
    sample: Sample,
    method: Method,
    guards: Sequence[Maximisation],
    seeds: Sequence[np.random.SeedSequence],
    given: Given | None,
) -> tuple[Step, Maximisation]:
    """Where EM on the sample led to from the best start of each seed, and the best of these."""
    ready = _prepared(sample, method)
    runs = _short_runs(sample, method, given, ready)
    found = [
        _settled_on_sample(sample, method, guard, seed, given, ready, runs)
        for guard, seed in zip(guards, seeds, strict=True)
    ]
    best = best_of(found)
    guard = guards[found.index(best)]
    if sample.on_larger is not None:
        with suppress(*IN_TROUBLE):  # of which all rows are to decide
            best = refine(sample.on_larger, _end(best), guard, tol=method.tol)
    return _end(best), guard


def _end(result: FitResult) -> Step:
    return Step(result.parameters, result.events_)


def _settled_on_sample(
    sample: Sample,
    method: Method,
    guard: Maximisation,
    seed: np.random.SeedSequence,
    given: Given | None,
    ready: Prepared,
    short_runs: ShortRuns,
) -> FitResult:
    """EM on the sample from the start, or from another that leads further.

    Short runs of EM are the cheapest way past a poor start (Biernacki, Celeux and Govaert 2003,
    Comput. Stat. Data Anal. 41): of TRIES - 1 others the one that is best after a few passes is
    followed to its end. What chance alone adds, half a row for each parameter, is no lead.
    """
    assert sample.expectation is not None
    start = _start(sample, method, guard, seed, given, ready)
    settled = refine(sample.expectation, start, guard, tol=method.tol)
    runs = list(short_runs(guard, seed))
    if not runs:
        return settled
    best = Step(best_of(runs).parameters, ())
    lead = settled.parameters.n_free_parameters / (2 * max(1, settled.n_rows))
    with suppress(*IN_TROUBLE):
        other = refine(sample.expectation, best, guard, tol=method.tol)
        if not other.events_ and other.lower_bounds[-1] > settled.lower_bounds[-1] + lead:
            return other
    return settled


def _prepared(sample: Sample, method: Method) -> Prepared:
    return prepare(sample.X, method.n_components, sample.weight)


def _short_runs(sample: Sample, method: Method, given: Given | None, ready: Prepared) -> ShortRuns:
    """How other starts are tried: on a part of the sample, where it has one."""
    rows, ready = (
        (sample, ready) if sample.part is None else (sample.part, _prepared(sample.part, method))
    )
    quick = "k-means++" if method.init_params == "kmeans" else method.init_params
    method = replace(method, init_params=quick)

    def runs(guard: Maximisation, seed: np.random.SeedSequence) -> Iterator[FitResult]:
        """A few passes from each, but for those with a component in trouble."""
        assert rows.expectation is not None
        others = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 0))
        for each in others.spawn(TRIES - 1):
            try:
                start = _start(rows, method, guard, each, given, ready)
                run = short_run(rows.expectation, start, guard)
            except IN_TROUBLE:
                continue
            if not run.events_:
                yield run

    return runs
