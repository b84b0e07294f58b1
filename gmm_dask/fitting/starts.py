"""From a sample of the rows to a fit over all of them: starts, EM on the sample, EM on all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

import numpy as np

from gmm_dask.fitting.em import Expectation, Fit, Rule, advance, go_on, passes
from gmm_dask.fitting.events import Event
from gmm_dask.fitting.initial.clutter import clustered, finds_noise, price
from gmm_dask.fitting.initial.initial_values import Given
from gmm_dask.fitting.initial.initialize import Prepared, initialize, prepare, start_of_groups
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.fitting.outcome import (
    FitResult,
    Prelude,
    Report,
    SearchRecord,
    Watcher,
    best_of,
    unheard,
)
from gmm_dask.fitting.sample import MAX_PASSES, Method, Sample, refine, rule_of
from gmm_dask.fitting.search.best_start import Found, best_start, has_rows
from gmm_dask.fitting.search.ground import FAMILIES, MATRICES
from gmm_dask.fitting.state import Keeper, Progress, State
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.row_arithmetic import RowArithmetic

TRIES = 8  # starts on the sample, all but the first of them for a few passes
SHORT = 10  # passes that tell a good start from a poor one


@dataclass(frozen=True, eq=False)
class Starts:
    """Where fits over all rows start from.

    Parameters
    ----------
    sample : Sample
    method : Method
    given : Given
    report : Report
    """

    sample: Sample
    method: Method
    given: Given
    report: Report = unheard

    @property
    def one_goes_on(self) -> bool:
        """Whether EM on the sample chooses the start of a single fit over all rows."""
        is_part = self.sample.expectation is not None
        return (
            is_part and self.given.is_nothing and self.method.sample_em and self.method.max_iter > 0
        )

    def begun(
        self,
        guards: Sequence[Maximisation],
        seeds: Sequence[np.random.SeedSequence],
        progress: Progress | None,
    ) -> Iterator[tuple[State, Maximisation]]:
        """The state of each fit over all rows: the fit under way first, then those to come."""
        done = 0
        if progress is not None:
            done = len(guards) if self.one_goes_on else progress.start
            yield progress.state, guards[progress.start - 1]
        if self.one_goes_on and progress is None:
            yield self._best_on_sample(guards, seeds)
            return
        for guard, seed in zip(guards[done:], seeds[done:], strict=True):
            found = self._found(guard, seed)
            if guard.noise is not None and self.given.is_nothing and self.method.max_iter > 0:
                found = self._beside_noise(found, guard, seed)
            parameters = guard.with_noise(found.start.parameters)
            start = found.start._replace(parameters=parameters)
            yield replace(State.begin(start), search=found.record), guard

    def _found(self, guard: Maximisation, seed: np.random.SeedSequence) -> Found:
        """The start that a search finds, or the one that `init_params` names."""
        return self._searched(guard, seed) or Found(self._start(guard, seed), None)

    def _beside_noise(
        self, plain: Found, guard: Maximisation, seed: np.random.SeedSequence
    ) -> Found:
        """The start that EM leads further from: the plain one, or that of rows without noise."""
        others = self._without_noise._found(guard, seed)
        ends: list[FitResult | None] = []
        X, weight = self.sample.X, self.sample.weight  # all rows
        arithmetic = RowArithmetic.chosen("em")

        def expectation(parameters: Parameters) -> SufficientStatistics:
            return arithmetic.e_step(X, parameters, weight, unit=guard.unit)

        for start in (plain.start, others.start):
            try:
                ends.append(refine(expectation, start, guard, tol=self.method.tol))
            except IN_TROUBLE:
                ends.append(None)
        chosen = int(finds_noise(ends[1], ends[0]))
        found, end = (plain, others)[chosen], ends[chosen]
        if end is None or self._is_worth_it(end, expectation, guard):
            return found
        return found._replace(start=_noiseless(found.start, guard))

    def _is_worth_it(self, noisy: FitResult, expectation: Expectation, guard: Maximisation) -> bool:
        """Whether noise explains the sample so much better than EM from there without noise."""
        start = Step(replace(noisy.parameters, noise=None), ())
        plain = replace(guard, noise=None)
        try:
            other = refine(expectation, start, plain, tol=self.method.tol)
        except IN_TROUBLE:
            return True
        m, d = self.sample.X.shape
        return bool((noisy.lower_bounds[-1] - other.lower_bounds[-1]) * m > price(m, d))

    def _searched(self, guard: Maximisation, seed: np.random.SeedSequence) -> Found | None:
        """The start that a search finds; None where none is asked for, or all of it failed."""
        method = self.method
        if method.init_params != "auto" or method.n_components == 1 or not self.given.is_nothing:
            return None
        k, kind, threads = method.n_components, method.covariance_type, self.sample.threads
        how = (seed, method.effort, threads, self.report)
        guard = replace(guard, noise=None)
        if kind in FAMILIES:
            found = best_start(self._ready, k, kind, guard, *how)
            if found is not None or not (kind in MATRICES and has_rows(self._ready, k, kind)):
                return found
        # low_rank is between both; others come here where their own search would take too long.
        for near in ("full", "diag") if kind not in FAMILIES else ("diag",):
            if (found := best_start(self._ready, k, near, guard, *how)) is not None:
                return self._turned(found.start.parameters, guard)
        return None

    def _turned(self, found: Parameters, guard: Maximisation) -> Found:
        """The start from the groups that a mixture of another family makes of the rows."""
        resp = RowArithmetic.chosen("em").responsibilities(self._ready.sample, found)
        return Found(start_of_groups(self._ready, resp, self.method.covariance_type, guard), None)

    def _start(
        self, guard: Maximisation, seed: np.random.SeedSequence, ready: Prepared | None = None
    ) -> Step:
        return initialize(
            self.sample.X,
            self.method.n_components,
            self.method.covariance_type,
            guard,
            init_params="kmeans" if self.method.init_params == "auto" else self.method.init_params,
            seed=seed,
            sample_weight=self.sample.weight,
            given=self.given,
            ready=ready,
        )

    @cached_property
    def _ready(self) -> Prepared:
        return prepare(self.sample.X, self.method.n_components, self.sample.weight)

    @cached_property
    def _quick(self) -> Starts:
        """How other starts are tried: quickly, on a part of the sample where there is one."""
        init_params = self.method.init_params
        quick = "k-means++" if init_params in ("kmeans", "auto") else init_params
        method = replace(self.method, init_params=quick)
        sample = self.sample.part or self.sample
        return replace(self, sample=sample, method=method)

    @cached_property
    def _without_noise(self) -> Starts:
        """Starts on the rows of the sample that do not look like noise; passes are as before."""
        X, weight = self.sample.X, self.sample.weight
        chosen = clustered(X)
        weight = None if weight is None else weight[chosen]
        return replace(self, sample=replace(self.sample, X=X[chosen], weight=weight, part=None))

    def _best_on_sample(
        self, guards: Sequence[Maximisation], seeds: Sequence[np.random.SeedSequence]
    ) -> tuple[State, Maximisation]:
        """Where EM on the sample led to from the best start of each seed, and the best of these."""
        found = []
        for guard, seed in zip(guards, seeds, strict=True):
            self.report("start on the sample", guard.start, len(guards))
            found.append(self._settled(guard, seed))
        best = best_of(found)
        guard, path = guards[found.index(best)], [best]
        if self.sample.on_larger is not None:
            with suppress(*IN_TROUBLE):  # all rows decide what becomes of such components
                start, watch = _end(best), self._watch("EM on a larger sample")
                path += [
                    refine(self.sample.on_larger, start, guard, tol=self.method.tol, watch=watch)
                ]
        end = State.begin(_end(path[-1]))
        return replace(end, search=best.search, prelude=Prelude.of(*path)), guard

    def _watch(self, phase: str) -> Watcher:
        return lambda record: self.report(phase, record.number, MAX_PASSES)

    def _settled(self, guard: Maximisation, seed: np.random.SeedSequence) -> FitResult:
        """Where EM on the sample led to; with noise also from rows that do not look like it."""
        if guard.noise is None:
            return self._followed(guard, seed)
        found, errors = [], []
        for starts in (self, self._without_noise):
            try:
                found.append(starts._followed(guard, seed))
            except IN_TROUBLE as error:
                errors.append(error)
        if not found:
            raise errors[0]
        best = found[-1] if finds_noise(found[-1], found[0]) else found[0]
        assert self.sample.expectation is not None
        if self._is_worth_it(best, self.sample.expectation, guard):
            return best
        plain = self._followed(replace(guard, noise=None), seed)
        return replace(plain, parameters=_noiseless(_end(plain), guard).parameters)

    def _followed(self, guard: Maximisation, seed: np.random.SeedSequence) -> FitResult:
        """EM on the sample from the start, or from another that leads further.

        Short runs of EM are the cheapest way past a poor start (Biernacki, Celeux and Govaert
        2003, Comput. Stat. Data Anal. 41): of TRIES - 1 others the one that is best after a few
        passes is followed to its end.
        """
        expectation, tol = self.sample.expectation, self.method.tol
        assert expectation is not None
        searched, watch = self._searched(guard, seed), self._watch("EM on the sample")
        if searched is not None:
            settled = refine(expectation, searched.start, guard, tol=tol, watch=watch)
            if searched.is_plain:
                return replace(settled, search=searched.record)
            with suppress(*IN_TROUBLE):
                start = self._start(guard, seed, self._ready)
                plain = refine(expectation, start, guard, tol=tol, watch=watch)
                return _better_of(settled, plain, searched.record)
            return replace(settled, search=searched.record)
        start = self._start(guard, seed, self._ready)
        settled = refine(expectation, start, guard, tol=tol, watch=watch)
        runs = self._quick.short_runs(guard, seed)
        if not runs:
            return settled
        best = Step(best_of(runs).parameters, ())
        with suppress(*IN_TROUBLE):
            other = refine(expectation, best, guard, tol=tol, watch=watch)
            if not other.events_ and _leads(other, settled):
                return other
        return settled

    def short_runs(self, guard: Maximisation, seed: np.random.SeedSequence) -> list[FitResult]:
        """A few passes from other starts, without those that had a component in trouble."""
        assert self.sample.expectation is not None
        rule, begun = Rule(0.0, SHORT), []
        others = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 0))
        for number, each in enumerate(others.spawn(TRIES - 1), start=1):
            self.report("other starts", number, TRIES - 1)
            with suppress(*IN_TROUBLE):
                begun.append(Fit.begin(self._start(guard, each, self._ready), guard, rule))
        expectation, turn = self.sample.expectation, count(1)

        def told(parameters: Parameters) -> SufficientStatistics:
            self.report("first passes of other starts", next(turn), SHORT * len(begun))
            return expectation(parameters)

        ended = advance(begun, passes(told), leaving=IN_TROUBLE)
        return [fit.result for fit in ended if not fit.state.events]


def _better_of(settled: FitResult, plain: FitResult, record: SearchRecord | None) -> FitResult:
    """The end of a search on a part of the sample, or that of a start on all of it if it leads."""
    if record is None:
        return plain if not plain.events_ and _leads(plain, settled) else settled
    record = replace(record, n_starts=record.n_starts + 1)
    if plain.events_ or _leads(settled, plain):
        return replace(settled, search=record)
    if not _leads(plain, settled):
        again = record.n_replicated + 1
        return replace(settled, search=replace(record, n_replicated=again))
    lower = (plain.lower_bounds[-1] - settled.lower_bounds[-1]) * plain.sum_weight
    record = replace(record, n_replicated=1, runner_up_difference=lower)
    return replace(plain, search=record)


def _leads(one: FitResult, other: FitResult) -> bool:
    """Whether a fit is better by more than chance adds, half a row for each parameter."""
    lead = other.parameters.n_free_parameters / (2 * max(1, other.n_rows))
    return one.lower_bounds[-1] > other.lower_bounds[-1] + lead


def _noiseless(start: Step, guard: Maximisation) -> Step:
    """A start whose noise has no share, and so gets none."""
    assert guard.noise is not None
    noise = guard.noise.with_share(0.0)
    return start._replace(parameters=replace(start.parameters, noise=noise))


def _end(result: FitResult) -> Step:
    return Step(result.parameters, result.events_)


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
