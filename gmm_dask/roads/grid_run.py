"""The road of a grid: candidates of several families and numbers of components share every read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask import engine, fitting
from gmm_dask.engine.passes.evaluation import Scored
from gmm_dask.engine.passes.expectation import Expectation
from gmm_dask.errors import DataError, StarvedComponentError
from gmm_dask.fitting import choice
from gmm_dask.fitting.choice import Candidate, Measured, Member, Selection
from gmm_dask.fitting.m_step import IN_TROUBLE
from gmm_dask.fitting.sample import FINER, rule_of
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.roads.fitting_run import (
    FitCheckpoint,
    FitData,
    FitListener,
    FittedRows,
    Ready,
    cautions_of,
    made_ready,
    settling_rows,
    surveyed_rows,
    with_cautions,
)
from gmm_dask.sampling import Fold, row_keys
from gmm_dask.sections import FitSettings

Array = npt.NDArray[np.float64]

HELD_OUT = 0.2  # of the rows, by their hashes
MAX_REPAIRS = 3  # times that candidates which fell below fewer components start again


class Grid(NamedTuple):
    """Which candidates there are, and what the choice among them is made by.

    Parameters
    ----------
    candidates : sequence of Candidate
    criterion : one of fitting.choice.CRITERIA
    n_bootstrap : int
        Draws of a test of the best against one component more; 0 for none.
    """

    candidates: Sequence[Candidate]
    criterion: str = "bic"
    n_bootstrap: int = 0


@dataclass(frozen=True, eq=False)
class SelectedRows:
    """The fit that was chosen, and the table it was chosen from.

    Parameters
    ----------
    fitted : FittedRows
    selection : Selection
    """

    fitted: FittedRows
    selection: Selection


def select_rows(
    data: FitData,
    backend: engine.Backend,
    settings: FitSettings,
    grid: Grid,
    listener: FitListener,
    checkpoint: FitCheckpoint | None = None,
    *,
    seeds: Sequence[np.random.SeedSequence],
) -> SelectedRows:
    """Fit all candidates to rows and choose one: the same arguments come to the same bits.

    Each candidate is the fit that `fit_rows` makes of its settings and the same seeds. All are
    advanced by the same passes, so that the rows are read as often as for the longest of them, and
    once more for the criteria, which one fit needs a read for as well.

    Parameters
    ----------
    data, backend, listener, seeds
        As for `fit_rows`; the seeds serve every candidate.
    settings : FitSettings
        What the candidates have in common.
    grid : Grid
    checkpoint : FitCheckpoint, optional
        Keeps the survey alone: the passes of a grid that was stopped begin anew.

    Raises
    ------
    StarvedComponentError
        Every candidate had components in trouble.
    """
    settings_of = {each: _settings_of(settings, each) for each in grid.candidates}
    larger = {each: settling_rows(own, data) for each, own in settings_of.items()}
    most = settings_of[max(grid.candidates)]
    surveyed, rows = surveyed_rows(
        data, backend, most, listener, checkpoint, seeds[0], larger_rows=[*larger.values()]
    )
    cautions = cautions_of(data, surveyed)
    for caution in cautions:
        listener.caution(caution.message)
    ready = {
        each: made_ready(
            data,
            own,
            surveyed.with_fewer(own.init_rows, larger[each]),
            rows,
            backend,
            listener,
        )
        for each, own in settings_of.items()
    }
    running = _Running(ready, settings, grid, listener, seeds[1:])
    selection = running.selection()
    best = selection.best
    own = settings_of[best.candidate]
    listener.happened(best.result.events_)
    result = with_cautions(best.result, ready[best.candidate].guards[0], own, listener)
    n_reads = surveyed.n_reads + (0 if surveyed.replaces_rows else running.n_reads)
    return SelectedRows(FittedRows(result, surveyed, cautions, n_reads), selection)


def _settings_of(settings: FitSettings, candidate: Candidate) -> FitSettings:
    return settings.model_copy(update=candidate._asdict())


@dataclass(eq=False)
class _Running:
    """A grid under way.

    Parameters
    ----------
    ready : mapping of Candidate to Ready
    settings : FitSettings
    grid : Grid
    listener : FitListener
    seeds : one for each start
    n_passes, n_reads : int
        Passes that members shared, and all reads so far.
    """

    ready: Mapping[Candidate, Ready]
    settings: FitSettings
    grid: Grid
    listener: FitListener
    seeds: Sequence[np.random.SeedSequence]
    n_passes: int = 0
    n_reads: int = 0
    known: dict[Candidate, Measured] = field(default_factory=dict)

    @property
    def over_all(self) -> Expectation:
        """A pass over all rows, which is the same for all."""
        return next(iter(self.ready.values())).asked.over_all

    @property
    def is_single(self) -> bool:
        """Whether the first passes are in single precision."""
        return self.settings.arithmetic == "single" and self.over_all.in_single() is not None

    @property
    def is_likelihood(self) -> bool:
        """Whether more components cannot end lower: fits make the likelihood as large as it is."""
        return self.settings.objective == "log-likelihood" and self.grid.criterion != "mml"

    @property
    def salt(self) -> int:
        """Of the hashes that part the rows: the seed of the first start says it."""
        return int(self.seeds[0].generate_state(1, np.uint64)[0])

    def selection(self) -> Selection:
        """Starts, shared passes, criteria and the choice."""
        members = self._without_falls(list(self._begun()))
        ended = choice.at_their_ends([*members, *self._twins()], self._pass)
        self.known = self._measured([one for one in ended if one.is_whole])
        if self._falls() and next(iter(self.ready.values())).sample.expectation is None:
            self._repair()  # reading nothing but the rows that are here
        if not self.known:
            raise StarvedComponentError(
                "Every candidate has a component that is no density any more: set n_components "
                "lower, or component_policy to floor.",
                0,
            )
        lost = tuple(each for each in self.grid.candidates if each not in self.known)
        n_rows = max(each.result.n_rows for each in self.known.values())
        found = Selection.of(
            self.grid.criterion,
            [*self.known.values()],
            n_rows=n_rows,
            lost=lost,
            fallen=tuple(self._falls()),
            n_passes=self.n_passes,
        )
        return replace(found, bootstrap=self._bootstrap(found.best))

    def _begun(self) -> Iterator[Member]:
        if self.grid.criterion == "mml":
            for most in self._of_most():
                yield from self._annihilated(most)
            return
        for number, candidate in enumerate(self.ready):
            self.listener.progress("starts of candidates", number, len(self.ready), str(candidate))
            yield from self._members(candidate)

    def _of_most(self) -> list[Candidate]:
        """The candidate of the most components in each family."""
        return list({each.covariance_type: each for each in sorted(self.ready)}.values())

    def _annihilated(self, most: Candidate) -> Iterator[Member]:
        """Candidates of a family from one fit of the most, whose components die one by one."""
        ready, sample = self.ready[most], self.ready[most].sample
        numbers = {one.n_components: one for one in self.ready if one[1] == most[1]}
        plain = "kmeans" if ready.method.init_params == "auto" else ready.method.init_params
        method = replace(ready.method, init_params=plain, sample_em=False)
        fewest, tol = min(numbers), FINER * self.settings.tol
        with suppress(*IN_TROUBLE):
            for fit in fitting.fits_to_come(sample, method, ready.guards, self.seeds):
                # A sample tells as much as its rows do, whatever rows it stands for.
                rows = None if sample.expectation is None else float(len(sample.X))
                for found in choice.annihilated(fit, self._shared(sample), fewest, rows, tol):
                    n_left = found.n_components
                    self.listener.progress("components die", most[0] - n_left, most[0] - fewest)
                    if (candidate := numbers.get(n_left)) is not None:
                        step, guard = fitting.Step(found, ()), choice.Annihilation.of(fit.maximise)
                        yield self._settled(candidate, step, guard, [sample.on_larger])

    def _members(self, candidate: Candidate, fold: Fold | None = None) -> list[Member]:
        """The fits of a candidate before their first passes; none where there is no start."""
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

    def _folds(self) -> list[Fold]:
        """The rows that twins of the candidates are fitted to."""
        if self.grid.criterion == "held_out":
            return [Fold(self.salt, HELD_OUT, 1.0)]
        if self.grid.criterion == "prediction_strength":
            return [Fold(self.salt, 0.0, 0.5), Fold(self.salt, 0.5, 1.0)]
        return []

    def _twins(self) -> list[Member]:
        """The same fits to the rows of each fold, from starts on these rows alone."""
        each = ((candidate, fold) for fold in self._folds() for candidate in self.ready)
        return [member for candidate, fold in each for member in self._members(candidate, fold)]

    def _pass(self, members: Sequence[Member]) -> list[SufficientStatistics]:
        asked = [
            engine.Asked(one.fit.parameters, one.fit.is_rough and self.is_single, one.fold)
            for one in members
        ]
        self.n_passes += 1
        self.n_reads += self.over_all.n_passes(asked)
        n_left = len({one.candidate for one in members})
        note = f"{n_left} of {len(self.ready)} candidates"
        self.listener.progress("shared passes", self.n_passes, None, note)
        return self.over_all.together(asked)

    def _measured(self, members: Sequence[Member]) -> dict[Candidate, Measured]:
        """What all rows say of the best fit of each candidate, from one pass."""
        best: dict[tuple[Candidate, Fold | None], Member] = {}
        for member in members:
            key = (member.candidate, member.fold)
            both = [*([best[key]] if key in best else []), member]
            results = [one.fit.result for one in both]
            best[key] = both[results.index(fitting.best_of(results))]
        whole = {candidate: one for (candidate, fold), one in best.items() if fold is None}
        parts = {key: one for key, one in best.items() if key[1] is not None and key[0] in whole}
        if not whole:
            return {}
        asked = [engine.Asked(one.fit.state.settled) for one in whole.values()]
        held_out = Fold(self.salt, 0.0, HELD_OUT)
        tested = list(parts) if self.grid.criterion == "held_out" else []
        asked += [engine.Asked(parts[key].fit.state.settled, fold=held_out) for key in tested]
        pairs = [] if tested else list(_pairs(parts))
        compared = [
            engine.Compared(own.fit.state.settled, other.fit.state.settled, fold)
            for own, other in pairs
            if (fold := own.fold) is not None
        ]
        scores, tables = engine.evaluated(self.over_all, asked, compared)
        self.n_reads += 1
        of_tested = dict(zip((key[0] for key in tested), scores[len(whole) :], strict=True))
        strengths = _mean_strengths(pairs, tables)
        return {
            candidate: self._one(member, score, of_tested.get(candidate), strengths)
            for (candidate, member), score in zip(whole.items(), scores, strict=False)
        }

    def _one(
        self,
        member: Member,
        score: Scored,
        tested: Scored | None,
        strengths: Mapping[Candidate, float],
    ) -> Measured:
        unit = member.fit.maximise.unit
        return Measured(
            member.candidate,
            member.fit.result,
            score.log_likelihood * unit,
            score.completed * unit,
            float(np.log(score.weight) + np.log(unit)),
            None if tested is None or not tested.weight else tested.log_likelihood / tested.weight,
            strengths.get(member.candidate),
            member.is_split,
        )

    def _without_falls(self, members: list[Member]) -> list[Member]:
        """Members that start no lower on the sample than those of fewer components.

        A start that does is found anew by a split of the mixture of fewer, which reads nothing.
        """
        by_candidate = {one.candidate: one for one in members}
        first = next(iter(self.ready.values()))
        on_sample = first.asked.sample.expectation
        are_settled = first.method.sample_em and len(by_candidate) == len(members)
        if on_sample is None or not are_settled or not self.is_likelihood:
            return members
        asked = [engine.Asked(one.fit.parameters) for one in by_candidate.values()]
        found = on_sample.together(asked)
        values = {one: each.log_likelihood for one, each in zip(by_candidate, found, strict=True)}
        least = FINER * self.settings.tol * max(each.sum_weight for each in found)
        tried: set[Candidate] = set()
        while falls := _untried(choice.fallen(values, least), tried):
            candidate, before = next(iter(falls.items()))
            tried.add(candidate)
            again = self._split(candidate, by_candidate[before].fit.parameters)
            if again is None:
                continue
            value = on_sample(again.fit.parameters).log_likelihood
            if value > values[candidate]:
                values[candidate], by_candidate[candidate] = value, again
        return list(by_candidate.values())

    def _split(self, candidate: Candidate, fewer: Parameters) -> Member | None:
        """A member that starts from a mixture of fewer components, settled on the sample."""
        ready = self.ready[candidate]
        guard, sample = replace(ready.guards[0]), ready.sample
        step = choice.split_starts(fewer, candidate.n_components, guard, self._shared(sample))
        if step is None:
            return None
        of_sample = [sample.expectation, sample.on_larger]
        return self._settled(candidate, step, guard, of_sample, is_split=True)

    def _settled(
        self,
        candidate: Candidate,
        step: fitting.Step,
        guard: fitting.Maximisation,
        of_sample: Sequence[fitting.Expectation | None],
        *,
        is_split: bool = False,
    ) -> Member:
        """A member that starts where EM on samples leads to from a mixture."""
        ready = self.ready[candidate]
        with suppress(*IN_TROUBLE):
            for each in of_sample:
                if each is not None:
                    found = fitting.refine(each, step, guard, tol=self.settings.tol)
                    step = fitting.Step(found.parameters, found.events_)
        rule = rule_of(ready.sample, ready.method)
        fit = fitting.Fit.begin(step, guard, rule, is_rough=self.is_single)
        return Member(candidate, fit, is_split=is_split)

    def _shared(self, sample: fitting.Sample) -> fitting.SharedPass:
        """Passes over the sample, or over all rows where the sample is all."""
        on_sample = sample.expectation
        if isinstance(on_sample, Expectation):
            return lambda fits: on_sample.together([engine.Asked(fit.parameters) for fit in fits])

        def over_all(fits: Sequence[fitting.Fit]) -> list[SufficientStatistics]:
            asked = [engine.Asked(fit.parameters) for fit in fits]
            self.n_reads += self.over_all.n_passes(asked)
            return self.over_all.together(asked)

        return over_all

    def _falls(self) -> dict[Candidate, Candidate]:
        """Candidates that ended lower than fewer components did, by more than tol per row."""
        if not self.is_likelihood:
            return {}
        values = {each: one.log_likelihood for each, one in self.known.items()}
        weight = max((np.exp(one.log_weight) for one in self.known.values()), default=0.0)
        return choice.fallen(values, self.settings.tol * weight)

    def _repair(self) -> None:
        """Start candidates that ended lower than fewer components again, from a split of these."""
        tried: set[Candidate] = set()
        for _ in range(MAX_REPAIRS):
            falls = _untried(self._falls(), tried)
            begun = [
                self._split(each, self.known[before].result.parameters)
                for each, before in falls.items()
            ]
            tried |= falls.keys()
            if not (members := [one for one in begun if one is not None]):
                return
            found = self._measured(choice.at_their_ends(members, self._pass))
            for each, one in found.items():
                if one.log_likelihood > self.known[each].log_likelihood:
                    before = self.known[each]
                    self.known[each] = replace(
                        one, held_out=before.held_out, strength=before.strength
                    )

    def _bootstrap(self, best: Measured) -> choice.Bootstrap | None:
        if not self.grid.n_bootstrap:
            return None
        ready = self.ready[best.candidate]
        return choice.bootstrap_test(
            best.result.parameters,
            ready.sample,
            ready.method,
            ready.guards[0],
            self.grid.n_bootstrap,
            self.seeds[0],
        )


def _untried(
    falls: Mapping[Candidate, Candidate], tried: set[Candidate]
) -> dict[Candidate, Candidate]:
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


def _pairs(
    parts: Mapping[tuple[Candidate, Fold | None], Member],
) -> Iterator[tuple[Member, Member]]:
    """The fits of a candidate to the two halves, each as the one that is tested."""
    for (candidate, fold), member in parts.items():
        for (candidate_of_other, other), another in parts.items():
            if candidate_of_other == candidate and other != fold:
                yield member, another


def _mean_strengths(
    pairs: Sequence[tuple[Member, Member]], tables: Sequence[Array]
) -> dict[Candidate, float]:
    """Prediction strength of each candidate, the mean over its two halves."""
    found: dict[Candidate, list[float]] = {}
    for (own, _), table in zip(pairs, tables, strict=True):
        weights = table * own.fit.maximise.unit
        found.setdefault(own.candidate, []).append(choice.prediction_strength(weights))
    return {each: float(np.mean(both)) for each, both in found.items()}
