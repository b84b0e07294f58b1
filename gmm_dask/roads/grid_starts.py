"""Where the fits of a grid start: found on the sample, most of them from one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from gmm_dask import engine, fitting
from gmm_dask.engine.passes.expectation import Expectation
from gmm_dask.errors import DataError
from gmm_dask.fitting import choice
from gmm_dask.fitting.choice import Candidate, Member
from gmm_dask.fitting.m_step import IN_TROUBLE
from gmm_dask.fitting.sample import FINER, rule_of
from gmm_dask.fitting.search.best_start import Found
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.roads.fitting_run import FitListener, Ready
from gmm_dask.sampling import Fold, row_keys


@dataclass(eq=False)
class GridStarts:
    """Members before their first passes over all rows.

    Parameters
    ----------
    ready : mapping of Candidate to Ready
    tol : float
        Tolerance of the fits.
    is_likelihood : bool
        Whether more components cannot end lower: fits make the likelihood as large as it is.
    is_single : bool
        Whether the first passes are in single precision.
    listener : FitListener
    seeds : one for each start
    n_reads : int
        Passes over all rows that starts took, where no sample has fewer.
    """

    ready: Mapping[Candidate, Ready]
    tol: float
    is_likelihood: bool
    is_single: bool
    listener: FitListener
    seeds: Sequence[np.random.SeedSequence]
    n_reads: int = 0

    @property
    def most(self) -> Ready:
        """What the candidate of the most components starts from, which serves all."""
        return self.ready[max(self.ready)]

    @property
    def over_all(self) -> Expectation:
        """A pass over all rows, which is the same for all."""
        return self.most.asked.over_all

    def of_all(self) -> list[Member]:
        """A member for each candidate at least, but for those whose start is no mixture.

        No start is lower on the sample than that of fewer components.
        """
        return self._without_falls(self._started())

    def of_fold(self, fold: Fold) -> list[Member]:
        """A member for each candidate, fitted to the rows of a fold from starts on these alone."""
        return self._started(fold)

    def annihilated(self) -> list[Member]:
        """Candidates from one fit of the most components of each family, which die one by one."""
        largest = {each.covariance_type: each for each in sorted(self.ready)}
        return [member for each in largest.values() for member in self._annihilated(each)]

    def _annihilated(self, most: Candidate) -> Iterator[Member]:
        ready, sample = self.ready[most], self.ready[most].sample
        numbers = {one.n_components: one for one in self.ready if one[1] == most[1]}
        plain = "kmeans" if ready.method.init_params == "auto" else ready.method.init_params
        method = replace(ready.method, init_params=plain, sample_em=False)
        fewest, tol = min(numbers), FINER * self.tol
        with suppress(*IN_TROUBLE):
            for fit in fitting.fits_to_come(sample, method, ready.guards, self.seeds):
                # A sample tells as much as its rows do, whatever rows it stands for.
                rows = None if sample.expectation is None else float(len(sample.X))
                shared = self._shared(ready.asked.sample.expectation)
                for found in choice.annihilated(fit, shared, fewest, rows, tol):
                    n_left = found.n_components
                    self.listener.progress("components die", most[0] - n_left, most[0] - fewest)
                    if (candidate := numbers.get(n_left)) is not None:
                        step, guard = fitting.Step(found, ()), choice.Annihilation.of(fit.maximise)
                        yield self._settled(candidate, step, guard, [sample.on_larger])

    def _started(self, fold: Fold | None = None) -> list[Member]:
        together = self._together(fold)
        found = []
        for number, candidate in enumerate(self.ready):
            if candidate in together:
                found.append(together[candidate])
                continue
            told = "starts of candidates", number, len(self.ready), str(candidate)
            self.listener.progress(*told)
            found += self._alone(candidate, fold)
        return found

    def _together(self, fold: Fold | None) -> dict[Candidate, Member]:
        """Members whose searches and passes over the sample are shared, one for a candidate."""
        most = self.most
        sample = most.sample if fold is None else _folded(most.sample, fold)
        methods = {each: one.method for each, one in self.ready.items()}
        how = (most.guards[0], self.seeds, self.listener.progress)
        with suppress(*(() if fold is None else (DataError,))):
            starts = choice.shared_starts(sample, methods, *how)
            guards = {each: replace(most.guards[0]) for each in starts}
            states = self._states(starts, guards, fold)
            return {
                each: Member(each, self._fit(each, state, guards[each]), fold, "neighbours")
                for each, state in states.items()
            }
        return {}

    def _states(
        self,
        starts: Mapping[Candidate, Found],
        guards: Mapping[Candidate, fitting.Maximisation],
        fold: Fold | None,
    ) -> dict[Candidate, fitting.State]:
        """Where the fits over all rows begin: from the ends of EM on the samples, if there is."""
        asked, method = self.most.asked, self.most.method
        if asked.sample.expectation is None or not (method.sample_em and method.max_iter):
            begun = {each: fitting.State.begin(one.start) for each, one in starts.items()}
            return {each: replace(one, search=starts[each].record) for each, one in begun.items()}
        on_sample = self._shared(asked.sample.expectation, fold)
        on_larger = None if asked.on_larger is None else self._shared(asked.on_larger, fold)
        return choice.settled(starts, guards, on_sample, on_larger, self.tol)

    def _fit(
        self, candidate: Candidate, state: fitting.State, guard: fitting.Maximisation
    ) -> fitting.Fit:
        ready = self.ready[candidate]
        rule = rule_of(ready.sample, ready.method)
        return fitting.Fit(replace(state, is_rough=self.is_single), guard, rule)

    def _alone(self, candidate: Candidate, fold: Fold | None) -> list[Member]:
        """The fits of a candidate as they are without others; none where there is no start."""
        ready = self.ready[candidate]
        guards = [replace(guard) for guard in ready.guards]
        sample = ready.sample if fold is None else _folded(ready.sample, fold)
        in_the_way = IN_TROUBLE if fold is None else (*IN_TROUBLE, DataError)
        with suppress(*in_the_way):
            fits = fitting.fits_to_come(
                sample,
                ready.method,
                guards,
                self.seeds,
                report=self.listener.progress,
                is_rough=self.is_single,
            )
            return [Member(candidate, fit, fold) for fit in fits]
        return []

    def _without_falls(self, members: list[Member]) -> list[Member]:
        """Members that start no lower on the sample than those of fewer components.

        A start that does is found anew by a split of the mixture of fewer, which reads nothing.
        """
        by_candidate = {one.candidate: one for one in members}
        on_sample = self.most.asked.sample.expectation
        are_settled = self.most.method.sample_em and len(by_candidate) == len(members)
        if on_sample is None or not are_settled or not self.is_likelihood:
            return members
        asked = [engine.Asked(one.fit.parameters) for one in by_candidate.values()]
        found = on_sample.together(asked)
        values = {one: each.log_likelihood for one, each in zip(by_candidate, found, strict=True)}
        least = FINER * self.tol * max(each.sum_weight for each in found)
        tried: set[Candidate] = set()
        while falls := untried(choice.fallen(values, least), tried):
            candidate, before = next(iter(falls.items()))
            tried.add(candidate)
            again = self.split(candidate, by_candidate[before].fit.parameters)
            if again is None:
                continue
            value = on_sample(again.fit.parameters).log_likelihood
            if value > values[candidate]:
                values[candidate], by_candidate[candidate] = value, again
        return list(by_candidate.values())

    def split(self, candidate: Candidate, fewer: Parameters) -> Member | None:
        """A member that starts from a mixture of fewer components, settled on the sample."""
        ready = self.ready[candidate]
        guard, sample = replace(ready.guards[0]), ready.sample
        step = choice.split_starts(
            fewer, candidate.n_components, guard, self._shared(ready.asked.sample.expectation)
        )
        if step is None:
            return None
        of_sample = [sample.expectation, sample.on_larger]
        return self._settled(candidate, step, guard, of_sample, start="split")

    def _settled(
        self,
        candidate: Candidate,
        step: fitting.Step,
        guard: fitting.Maximisation,
        of_sample: Sequence[fitting.Expectation | None],
        *,
        start: str = "own",
    ) -> Member:
        """A member that starts where EM on samples leads to from a mixture."""
        ready = self.ready[candidate]
        with suppress(*IN_TROUBLE):
            for each in of_sample:
                if each is not None:
                    found = fitting.refine(each, step, guard, tol=self.tol)
                    step = fitting.Step(found.parameters, found.events_)
        rule = rule_of(ready.sample, ready.method)
        fit = fitting.Fit.begin(step, guard, rule, is_rough=self.is_single)
        return Member(candidate, fit, start=start)

    def _shared(
        self, of_sample: Expectation | None, fold: Fold | None = None
    ) -> fitting.SharedPass:
        """Passes over a sample, or over all rows where the sample is all; or over a fold of it."""

        def shared_pass(fits: Sequence[fitting.Fit]) -> list[SufficientStatistics]:
            asked = [engine.Asked(fit.parameters, fold=fold) for fit in fits]
            if of_sample is not None:
                return of_sample.together(asked)
            self.n_reads += self.over_all.n_passes(asked)
            return self.over_all.together(asked)

        return shared_pass


def untried(
    falls: Mapping[Candidate, Candidate], tried: set[Candidate]
) -> dict[Candidate, Candidate]:
    """The falls of which no split was tried."""
    return {each: before for each, before in falls.items() if each not in tried}


def _folded(sample: fitting.Sample, fold: Fold) -> fitting.Sample:
    """The rows of a sample that are in a fold."""

    def of_fold(expectation: fitting.Expectation | None) -> fitting.Expectation | None:
        if not isinstance(expectation, Expectation):
            return None
        return lambda parameters: expectation.together([engine.Asked(parameters, fold=fold)])[0]

    there = fold.of(row_keys(sample.X, fold.salt))
    return fitting.Sample(
        sample.X[there],
        None if sample.weight is None else sample.weight[there],
        of_fold(sample.expectation),
        None if sample.part is None else _folded(sample.part, fold),
        of_fold(sample.on_larger),
    )
