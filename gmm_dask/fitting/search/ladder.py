"""Searches for several numbers of components, each of which begins from its neighbours' ends.

The rows, their coordinates and the views of them are made once. Upwards a search begins from the
optima of fewer components with one of them parted (Ueda, Nakano, Ghahramani and Hinton 2000, Neural
Comput. 12); downwards from those of more with one of them taken away, or two of them taken together
(Runnalls 2007, IEEE Trans. Aerosp. Electron. Syst. 43).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError
from gmm_dask.fitting.initial.initialize import Prepared
from gmm_dask.fitting.m_step import Maximisation
from gmm_dask.fitting.outcome import Report, unheard
from gmm_dask.fitting.search.best_start import (
    Found,
    affordable,
    are_enough,
    end_of,
    ground_of,
    has_rows,
    looked_at,
    rows_looked_at,
)
from gmm_dask.fitting.search.ground import FAMILIES, Candidate, Ground, best_first
from gmm_dask.fitting.search.moves import PARTS, Parted, losses_of
from gmm_dask.fitting.search.rounds import ALL_OF, EFFORTS, GLANCED, LONG, Effort, Optimum, Search
from gmm_dask.fitting.search.views import Views

Array = npt.NDArray[np.float64]

NO_MIXTURE = (np.linalg.LinAlgError, SingularCovarianceError)
NOBODY = -1  # a component that is taken away where none is
NEAR = 3  # components more or fewer that a neighbour has at most
PARENTS = 2  # optima of a neighbour that others begin from
N_FOLLOWED = 2  # optima of each number that are followed on all rows of the ground
N_WAYS, FEW = 1, 4  # ways from fewer components that are, and passes that tell them apart
ATTEMPTS_ON_PART = 1  # in vain, after which an optimum on a part of the rows is left as it is
BELOW, ABOVE = -1, -2  # lines, and rounds, of what comes from fewer and from more components


def searched(
    ready: Prepared,
    numbers: Sequence[int],
    covariance_type: str,
    guard: Maximisation,
    seeds: Sequence[np.random.SeedSequence],
    effort: str,
    threads: int = 1,
    report: Report = unheard,
) -> dict[int, Found]:
    """The best admissible optimum of each number of components on the rows, where one was found.

    Parameters
    ----------
    ready, covariance_type, guard, effort, threads, report
        As for `best_start`.
    numbers : sequence of int
    seeds : sequence of SeedSequence
        The first is that of every number's search; each of the others is for one search more of
        those numbers whose best was not found again.
    """
    bearable = [k for k in sorted(numbers) if k > 1 and has_rows(ready, k, covariance_type)]
    if covariance_type not in FAMILIES or not bearable:
        return {}
    with np.errstate(all="ignore"), suppress(*NO_MIXTURE):
        ground, standard = ground_of(ready, covariance_type, guard, threads)
        ladder = Ladder.of(ground, standard, bearable[-1], EFFORTS[effort], report)
        shape = ladder.n_rows, ground.X.shape[1]
        told = [k for k in bearable if are_enough(shape, k, covariance_type)]
        return ladder.found(told, seeds) if told else {}
    return {}


@dataclass(frozen=True, eq=False)
class Ladder:
    """The numbers of components that are searched for in one family, on the same rows.

    Parameters
    ----------
    ground : Ground
    quick : Ground
        The rows of the ground that searches look at.
    views : Views
    n_rows : int
        How many of them were asked for.
    effort : Effort
    report : Report
    """

    ground: Ground
    quick: Ground
    views: Views
    n_rows: int
    effort: Effort
    report: Report

    @classmethod
    def of(
        cls, ground: Ground, standard: Array, most: int, effort: Effort, report: Report
    ) -> Ladder:
        """The ladder up to a number of components."""
        n_rows = rows_looked_at(ground, most, effort)
        quick, standard = looked_at(ground, standard, n_rows)
        return cls(ground, quick, Views(quick, standard), n_rows, effort, report)

    def found(
        self, numbers: Sequence[int], seeds: Sequence[np.random.SeedSequence]
    ) -> dict[int, Found]:
        """What the search of each number came to, of those that came to a mixture."""
        steps = [*numbers, numbers[-1] + 1]  # which nobody asked for, but which leads downwards
        rungs = {k: self._rung(k, seeds[0], is_first=k == steps[0]) for k in steps}
        for fewer, k in pairwise([0, *steps]):
            with suppress(*NO_MIXTURE):
                if fewer and k - fewer <= NEAR and not rungs[k].is_plain:
                    rungs[k].begin_from(rungs[fewer])
                rungs[k].run()
        for k, more in reversed([*pairwise(steps)]):
            with suppress(*NO_MIXTURE):
                if more - k <= NEAR:
                    rungs[k].begin_from(rungs[more])
        for seed in seeds[1:]:
            for k in numbers:
                with suppress(*NO_MIXTURE):
                    rungs[k].run_again(seed)
        return self._ends([rungs[k] for k in numbers])

    def _rung(self, k: int, seed: np.random.SeedSequence, *, is_first: bool) -> Rung:
        """The search of a number, of half the starts where neighbours bring more of them."""
        effort = affordable(self.effort, self.ground, k, self.n_rows)
        if not is_first:
            effort = replace(effort, n_starts=max(GLANCED, effort.n_starts // 2))
        if self.is_part:
            effort = replace(effort, n_attempts=min(effort.n_attempts, ATTEMPTS_ON_PART))
        report = self._told(k)
        return Rung(self.quick, self.views, k, effort, seed, report, is_rough=self.is_part)

    def _told(self, k: int) -> Report:
        """A report that says which number it is about."""
        kind = self.ground.covariance_type

        def told(phase: str, done: int, of: int | None = None, note: str = "") -> None:
            self.report(phase, done, of, f"{k} components, {kind}: {note}")

        return told

    @property
    def is_part(self) -> bool:
        """Whether searches look at a part of the rows, where what is best is a guess."""
        return len(self.quick.X) < len(self.ground.X)

    def _ends(self, rungs: Sequence[Rung]) -> dict[int, Found]:
        """What searches come to on all rows of the ground, each beside ways from the one before."""
        found: dict[int, Found] = {}
        fewer: Candidate | None = None
        for one in rungs:
            with suppress(*NO_MIXTURE):
                near = fewer is not None and one.k - len(fewer.weights) == 1
                if fewer is not None and near and self.is_part:
                    one.optima = [*one.optima[:N_FOLLOWED], *self._ways_from(fewer)]
                end = end_of(one, self.ground, N_FOLLOWED + N_WAYS)
                if end is None or end.record is None:
                    continue
                n_starts = end.record.n_starts + one.n_neighbours
                record = replace(end.record, n_starts=n_starts)
                found[one.k] = end._replace(record=record)
                fewer = self.ground.candidate(end.start.parameters, BELOW)
        return found

    def _ways_from(self, fewer: Candidate) -> list[Optimum]:
        """The best of the ways to one component more, after a few passes over the ground."""
        begun = parted(self.ground, fewer, self.effort.n_swaps // 3)
        live = best_first(self.ground.climb(begun, FEW))[:N_WAYS]
        line = frozenset({BELOW})
        return [Optimum(each, line, line, 0) for each in live]


class Rung(Search):
    """The search for one number of components among several."""

    n_rounds = n_neighbours = 0

    def begin_from(self, other: Rung) -> None:
        """Look where the optima of another number lead to; and further, if that is the best."""
        is_below, k = other.k < self.k, self.effort.n_followed
        line, parents = (BELOW, PARENTS) if is_below else (ABOVE, 1)
        ways = [
            way
            for i, parent in enumerate(other.optima[:parents])
            for way in self._from(parent.candidate, self.effort.n_swaps // (1 + i))
        ]
        live = self._climb([replace(way, line=line) for way in ways], 2, prior_rows=1.0)
        live = self._climb(live, 10, accelerate=True)
        live = self._climb(self._chosen(live, math.ceil(len(live) / 2)), 25, accelerate=True)
        ended = self._climb(self._chosen(live, k), LONG, tol=self.settled, accelerate=True)
        if not ended:
            return
        self.n_neighbours += 1
        for each in best_first(ended):
            self._keep(each, line)
        best = self._better(ended, 1)[0]
        if self.n_rounds and self.optima[0].candidate is best:
            self._keep(self._moved(best), line)

    def _from(self, parent: Candidate, n: int) -> list[Candidate]:
        """Mixtures of this number out of one of fewer or of more components."""
        made = [parent]
        while made and len(made[0].weights) != self.k:
            is_below = len(made[0].weights) < self.k
            made = (parted if is_below else joined)(self.ground, made[0], max(n, 1))
            if made and len(made[0].weights) != self.k:
                made = best_first(self._climb(made, 12, accelerate=True))
        return made

    def run(self) -> list[Optimum]:
        """Rounds of starts until the best was found again, by a neighbour, a round or a line."""
        if self.is_plain:
            self.n_rounds = 1
            return self.optima
        while self.n_rounds < self.effort.n_rounds and not self._has_enough:
            self._round(self.n_rounds)
            self._doubled(self.n_rounds)
            self.n_rounds += 1
        return self.optima

    def run_again(self, seed: np.random.SeedSequence) -> None:
        """Other starts, where the best was not found again; moves only from what is better."""
        if self._is_found_again:
            return
        self.rng = np.random.default_rng(seed)
        best = self.optima[0].candidate if self.optima else None
        self._ends_of_starts(self.n_rounds)
        self.n_rounds += 1
        if self.optima and self.optima[0].candidate is not best and not self._is_found_again:
            self._keep(self._moved(self.optima[0].candidate), self.n_rounds)

    @property
    def _is_found_again(self) -> bool:
        """Whether the best was come to in several ways."""
        best = self.optima[0] if self.optima else None
        enough = max(self.effort.n_followed, ALL_OF)
        return best is not None and (len(best.rounds) > 1 or len(best.lines) >= enough)

    def _round(self, number: int) -> None:
        """As that of a search; but moves begin from the best, and not where it was found again."""
        if number or not self.n_neighbours:
            super()._round(number)
            return
        self._ends_of_starts(number)
        if not self.optima or (self._is_found_again and self.optima[0].is_admissible):
            return
        best = self._moved(self.optima[0].candidate)
        self._keep(best, number)
        if len(self.optima) > 1:
            self._crossed(best, number + 1)


def parted(ground: Ground, parent: Candidate, n: int) -> list[Candidate]:
    """The parent with one component in two parts, n ways at most, the most promising first."""
    parts = Parted(ground, parent, ground.responsibilities(parent))
    k = len(parent.weights)
    ways = [(-parts.gain(j, how), j, how) for j in range(k) for how in range(len(PARTS))]
    made = (parts.swapped(NOBODY, j, how) for _, j, how in sorted(ways)[:n])
    return [each for each in made if each is not None]


def joined(ground: Ground, parent: Candidate, n: int) -> list[Candidate]:
    """The parent with one component less, n ways at most.

    Half of the ways take a component away, of those that are missed least; half put two together,
    of those that share the most rows.
    """
    R = ground.responsibilities(parent)
    losses = losses_of(ground, R, parent.weights)
    gone = np.argsort(losses, kind="stable")[: max(1, n // 2)]
    shared = (R if ground.weight is None else R * ground.weight[:, None]).T @ R
    roots = np.sqrt(np.maximum(np.diagonal(shared), 1e-300))
    shared = shared / roots / roots[:, None]
    pairs = sorted(combinations(range(len(parent.weights)), 2), key=lambda pair: -shared[pair])
    found = [_of_components(ground, parent, np.delete(np.arange(len(losses)), j)) for j in gone]
    return found + [_together(ground, parent, *pair) for pair in pairs[: n - len(found)]]


def _of_components(ground: Ground, parent: Candidate, kept: npt.NDArray[np.intp]) -> Candidate:
    covariances, weights = parent.covariances, parent.weights[kept]
    if ground.covariance_type != "tied":
        covariances = covariances[kept]
    return Candidate(weights / weights.sum(), parent.means[kept], covariances)


def _together(ground: Ground, parent: Candidate, i: int, j: int) -> Candidate:
    """The parent with components i and j as the one of their weight, mean and covariance."""
    both, kind = parent.weights[[i, j]], ground.covariance_type
    share = both / both.sum()
    D = parent.means[i] - parent.means[j]
    kept = _of_components(ground, parent, np.delete(np.arange(len(parent.weights)), [i, j]))
    means = np.concatenate([kept.means, share @ parent.means[[i, j]][None]])
    weights = np.concatenate([kept.weights * (1 - both.sum()), [both.sum()]])
    covariances = kept.covariances
    if kind != "tied":
        between = np.outer(D, D) if kind == "full" else D**2 if kind == "diag" else (D**2).mean()
        within = np.einsum("i,i...->...", share, parent.covariances[[i, j]])
        covariances = np.concatenate([covariances, [within + share.prod() * between]])
    return Candidate(weights / weights.sum(), means, covariances)
