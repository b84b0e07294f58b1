"""The road of a grid: candidates of several families and numbers of components share every read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask import engine, fitting
from gmm_dask.engine.passes.evaluation import Scored
from gmm_dask.engine.passes.expectation import Expectation
from gmm_dask.errors import StarvedComponentError
from gmm_dask.fitting import choice
from gmm_dask.fitting.choice import Candidate, Measured, Member, Selection
from gmm_dask.mixture import SufficientStatistics
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
from gmm_dask.roads.grid_starts import GridStarts, untried
from gmm_dask.sampling import Fold
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

    All candidates are advanced by the same passes, so that the rows are read as often as for the
    longest of them, and once more for the criteria, which one fit needs a read for as well. With
    `init_params` auto the searches of a family share their rows and begin from one another's ends;
    any other candidate is the fit that `fit_rows` makes of its settings and the same seeds.

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
    fewer = {each: surveyed.with_fewer(settings.init_rows, n) for each, n in larger.items()}
    ready = {
        each: made_ready(data, own, fewer[each], rows, backend, listener)
        for each, own in settings_of.items()
    }
    starts = _starts(ready, settings, grid, listener, seeds[1:])
    running = _Running(starts, grid)
    selection = running.selection()
    best = selection.best
    own = settings_of[best.candidate]
    listener.happened(best.result.events_)
    result = with_cautions(best.result, ready[best.candidate].guards[0], own, listener)
    n_reads = surveyed.n_reads + (0 if surveyed.replaces_rows else running.n_reads + starts.n_reads)
    return SelectedRows(FittedRows(result, surveyed, cautions, n_reads), selection)


def _settings_of(settings: FitSettings, candidate: Candidate) -> FitSettings:
    return settings.model_copy(update=candidate._asdict())


def _starts(
    ready: Mapping[Candidate, Ready],
    settings: FitSettings,
    grid: Grid,
    listener: FitListener,
    seeds: Sequence[np.random.SeedSequence],
) -> GridStarts:
    over_all = next(iter(ready.values())).asked.over_all
    is_likelihood = settings.objective == "log-likelihood" and grid.criterion != "mml"
    is_single = settings.arithmetic == "single" and over_all.in_single() is not None
    tol = settings.tol
    return GridStarts(ready, tol, is_likelihood, is_single, listener, seeds)


@dataclass(eq=False)
class _Running:
    """A grid under way.

    Parameters
    ----------
    starts : GridStarts
    grid : Grid
    n_passes, n_reads : int
        Passes that members shared, and reads of all rows so far.
    known : dict of Candidate to Measured
        What has ended.
    """

    starts: GridStarts
    grid: Grid
    n_passes: int = 0
    n_reads: int = 0
    known: dict[Candidate, Measured] = field(default_factory=dict)

    @property
    def over_all(self) -> Expectation:
        """A pass over all rows, which is the same for all."""
        return self.starts.over_all

    @property
    def salt(self) -> int:
        """Salt of the hashes that part the rows, which follows from the seed of the first start."""
        return int(self.starts.seeds[0].generate_state(1, np.uint64)[0])

    def selection(self) -> Selection:
        """Starts, shared passes, criteria and the choice."""
        is_mml = self.grid.criterion == "mml"
        members = self.starts.annihilated() if is_mml else self.starts.of_all()
        twins = [member for fold in self._folds() for member in self.starts.of_fold(fold)]
        ended = choice.at_their_ends([*members, *twins], self._pass)
        self.known = self._measured([one for one in ended if one.is_whole])
        if self._falls() and self.starts.most.sample.expectation is None:
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

    def _folds(self) -> list[Fold]:
        """The rows that twins of the candidates are fitted to."""
        if self.grid.criterion == "held_out":
            return [Fold(self.salt, HELD_OUT, 1.0)]
        if self.grid.criterion == "prediction_strength":
            return [Fold(self.salt, 0.0, 0.5), Fold(self.salt, 0.5, 1.0)]
        return []

    def _pass(self, members: Sequence[Member]) -> list[SufficientStatistics]:
        asked = [
            engine.Asked(one.fit.parameters, one.fit.is_rough and self.starts.is_single, one.fold)
            for one in members
        ]
        self.n_passes += 1
        self.n_reads += self.over_all.n_passes(asked)
        n_left = len({one.candidate for one in members})
        note = f"{n_left} of {len(self.starts.ready)} candidates"
        self.starts.listener.progress("shared passes", self.n_passes, None, note)
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
            member.start,
        )

    def _falls(self) -> dict[Candidate, Candidate]:
        """Candidates that ended lower than fewer components did, by more than tol per row."""
        if not self.starts.is_likelihood:
            return {}
        values = {each: one.log_likelihood for each, one in self.known.items()}
        weight = max((np.exp(one.log_weight) for one in self.known.values()), default=0.0)
        return choice.fallen(values, self.starts.tol * weight)

    def _repair(self) -> None:
        """Start candidates that ended lower than fewer components again, from a split of these."""
        tried: set[Candidate] = set()
        for _ in range(MAX_REPAIRS):
            falls = untried(self._falls(), tried)
            begun = [
                self.starts.split(each, self.known[before].result.parameters)
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
        ready = self.starts.ready[best.candidate]
        return choice.bootstrap_test(
            best.result.parameters,
            ready.sample,
            ready.method,
            ready.guards[0],
            self.grid.n_bootstrap,
            self.starts.seeds[0],
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
