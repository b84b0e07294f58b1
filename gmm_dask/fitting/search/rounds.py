"""The search: rounds of starts, halving and moves, until the best optimum has been found again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.outcome import Report, unheard
from gmm_dask.fitting.search.ground import Candidate, Ground, best_first, grouped
from gmm_dask.fitting.search.joining import Joining
from gmm_dask.fitting.search.marks import Judge
from gmm_dask.fitting.search.moves import Swaps, crossings, leaving, with_twins
from gmm_dask.fitting.search.views import STARTS, Views, by_merging

Array = npt.NDArray[np.float64]

SAME = 0.1  # log-likelihood that two climbs to the same optimum may end apart
SETTLED = 0.01  # change of the log-likelihood at which an optimum is reached
ROUGHLY = 20.0  # times both where optima are followed on more rows
STRONGER = 4.0  # times the weak prior of a start, where spurious components are to be left
WEAKER = 0.02  # times the same
LOWER = 2  # times the attempts to leave one that is lower than another that is known
MORE = 3  # times the attempts to leave a spurious optimum
ALL_OF = 3  # starts at least that end at the same optimum for the first round to be the last
GLANCED = 6  # starts that may show already that the rows are plainly parted
GLANCE_SHARE = 10  # of the passes that the way of one of them to its end may take
DOUBLED = 6  # spurious optima whose sound components are looked at alone
LONG = 400  # passes of a climb to its end


@dataclass(frozen=True)
class Effort:
    """What a search may spend.

    Parameters
    ----------
    passes : int
        Passes over the rows of the sample, after which no new round begins.
    n_starts : int
        Starts of the first round; each later round has half as many.
    n_swaps : int
        Swaps that each attempt to leave an optimum tries.
    n_followed : int
        Starts of a round that are followed to their ends.
    n_attempts : int
        Attempts in vain after which an optimum is not left any more.
    n_rounds : int
        Rounds at most; there are fewer where the best was found again.
    """

    passes: int
    n_starts: int
    n_swaps: int
    n_followed: int
    n_attempts: int
    n_rounds: int

    def by(self, divisor: int) -> Effort:
        """An effort of `divisor` times fewer passes, and half the starts and swaps."""
        return replace(
            self,
            passes=self.passes // divisor,
            n_starts=max(4, self.n_starts // 2),
            n_swaps=max(2, self.n_swaps // 2),
        )


EFFORTS = {
    "low": Effort(90, 6, 4, 1, 1, 1),
    "medium": Effort(6000, 24, 20, 4, 2, 16),
    "high": Effort(30000, 48, 40, 6, 4, 20),
}


@dataclass(frozen=True, eq=False)
class Optimum:
    """An optimum of the likelihood on the ground.

    Parameters
    ----------
    candidate : Candidate
    lines : frozenset of int
        Numbers of the starts that led to the optimum.
    rounds : frozenset of int
        Rounds that these starts are of.
    n_marked : int
        Spurious components.
    """

    candidate: Candidate
    lines: frozenset[int]
    rounds: frozenset[int]
    n_marked: int

    @property
    def is_admissible(self) -> bool:
        """Whether no component is spurious."""
        return self.n_marked == 0

    @property
    def rank(self) -> tuple[int, float]:
        """The fewer spurious components the better, then the larger the log-likelihood."""
        return -self.n_marked, self.candidate.level


class Search:
    """A search on a ground; the same rows, seed and effort give the same optima."""

    def __init__(
        self,
        ground: Ground,
        views: Views,
        k: int,
        effort: Effort,
        seed: np.random.SeedSequence,
        report: Report = unheard,
        *,
        is_rough: bool = False,
    ) -> None:
        self.ground, self.views, self.k, self.effort = ground, views, k, effort
        self.report = report
        self.rng = np.random.default_rng(seed)
        self.judge, self.joining = Judge(ground), Joining(ground, views, k, *self.rng.spawn(1))
        self.same, self.settled = (each * (ROUGHLY if is_rough else 1) for each in (SAME, SETTLED))
        self.prior_rows: float = 1.0 + ground.rows.shape[1]
        self.margin = 0.02 * ground.n_rows**0.5 + 5.0
        self.spent, self.n_starts = 0.0, 0
        self.most = 1.5 * effort.passes  # after which no swap is tried
        self.optima: list[Optimum] = []
        self.first: list[Candidate] = []  # starts that were looked at before all others
        self.glanced: list[Candidate] = []  # and where the best of them end, if no more are needed
        self.swaps: list[tuple[float, Swaps]] = []  # those left from optima by log-likelihood

    def run(self) -> list[Optimum]:
        """The optima found, the best first."""
        if self.is_plain:
            return self.optima
        for number in range(self.effort.n_rounds):
            self._round(number)
            self._doubled(number)
            if self._has_enough:
                break
        return self.optima

    @cached_property
    def is_plain(self) -> bool:
        """Whether the best of a few starts is found twice, and no swap from there can pay.

        Where clusters are apart, rows lose more without any component than parting another one
        could bring.
        """
        self.first = self._starts(0, 0, GLANCED)
        live = self._climb(self._climb(self.first, 3, prior_rows=self._prior_of(0)), 4)
        live = best_first(live)[: math.ceil(GLANCED / 2)]
        is_all = self.effort.n_starts <= GLANCED
        n_steps = LONG if is_all else min(LONG, self.effort.passes // GLANCE_SHARE)
        found = self._climb(live, n_steps, tol=self.settled, accelerate=True)
        ended = best_first([one for one in found if is_all or one.converged])
        self.judge.look_at(ended)
        again = [x for x in ended if ended[0].log_likelihood - x.log_likelihood < self.same]
        is_sound = len(again) > 1 and self.judge.is_admissible(ended[0])
        is_plain = is_sound and self._swaps(ended[0]).cannot_pay
        if is_all or is_plain:  # else rounds look at the same starts again, and keep their ends
            self.glanced = ended
            for each in ended:
                self._keep(each, 0)
        return is_plain

    @property
    def _has_enough(self) -> bool:
        """Whether the best was found in two rounds or by all of one, or the passes are spent."""
        if self.spent >= self.effort.passes:
            return True
        if not self.optima:
            return False
        best, followed = self.optima[0], self.effort.n_followed
        return len(best.rounds) > 1 or len(best.lines) >= max(followed, ALL_OF)

    def _round(self, number: int) -> None:
        ended = self._ends_of_starts(number)
        if not ended:
            return
        best = self._moved(self._better(ended, 1)[0])
        self._keep(best, number)
        if number and self.optima[0].candidate is not best:
            self._crossed(best, number)

    def _ends_of_starts(self, number: int) -> list[Candidate]:
        """What the best of a round's starts end at, as kept."""
        n = self.effort.n_starts
        if number == 0 and self.glanced:
            return self.glanced
        first = self.first if number == 0 else self._starts(number, 0, GLANCED)
        starts = first + self._starts(number, GLANCED, n if number == 0 else n // 2)
        live = self._halved(starts, number)
        ended = self._climb(live, LONG, tol=self.settled, accelerate=True)
        for each in best_first(ended):
            self._keep(each, number)
        return ended

    def _doubled(self, number: int) -> None:
        """Leave spurious optima by way of fewer components, which the rows carry.

        Their likelihood is the same with equal ones in place of the others: a mixture at rest,
        from which swaps lead to others without marks.
        """
        is_sound = bool(self.optima) and self.optima[0].is_admissible
        if is_sound or self.ground.covariance_type == "tied":
            return
        live = [each.candidate for each in self.optima[:DOUBLED]]
        for _ in range(self.k):
            doubled = [with_twins(one, [j for j, _ in self.judge.marks(one)]) for one in live]
            live = [each for each in doubled if each is not None]
            live = self._climb(live, LONG, tol=self.settled)
            sound = [each for each in best_first(live) if self.judge.is_admissible(each)]
            if sound:
                self.most = max(self.most, self.spent + self.effort.passes / 4)
                self._keep(self._moved(sound[0]), number)
                return

    def _starts(self, number: int, begin: int, end: int) -> list[Candidate]:
        """The starts of a round from one number to another."""
        made, ground, k = [], self.ground, self.k
        names = self.views.names
        for i in range(begin, min(end, self.effort.n_starts)):
            V = self.views.rows(names[i % len(names)], self.rng)
            start = STARTS[(i // len(names) + 2 * number) % len(STARTS)]
            if i == self.effort.n_starts - 1 and self.n_starts < self.effort.n_starts:
                start = by_merging
            labels = None
            if i >= GLANCED:
                labels = self.joining.groups(V, i, self.rng)
            if labels is None:
                labels = start(V, k, self.rng, ground.weight)
            found = grouped(ground, labels, k, self.n_starts, self._prior_of(self.n_starts))
            self.n_starts += 1
            if found is not None:
                made.append(found)
        return made

    def _prior_of(self, line: int) -> float:
        """Rows of a start's prior: every other one has hardly any, for the sake of few rows."""
        return WEAKER * self.prior_rows if line % 2 else self.prior_rows

    def _climb(
        self,
        candidates: Sequence[Candidate],
        n_steps: int,
        *,
        tol: float = -1.0,
        accelerate: bool = False,
        prior_rows: float = 0.0,
    ) -> list[Candidate]:
        self._tell(f"{len(candidates)} live")
        ended = self.ground.climb(
            candidates, n_steps, tol=tol, accelerate=accelerate, prior_rows=prior_rows
        )
        self.spent += sum(each.n_passes for each in ended)
        self.spent += n_steps * (len(candidates) - len(ended)) / 2
        return ended

    def _tell(self, note: str) -> None:
        most = self.effort.passes
        self.report("search for the start", min(int(self.spent), most), most, note)

    def _halved(self, live: list[Candidate], number: int) -> list[Candidate]:
        even, odd = ([each for each in live if each.line % 2 == side] for side in (0, 1))
        live = self._climb(even, 3, prior_rows=self._prior_of(0))
        live += self._climb(odd, 3, prior_rows=self._prior_of(1))
        if number % 2 or (number and self.optima and not self.optima[0].is_admissible):
            # Where the likelihood draws components into spurious optima, a prior holds them back.
            live = self._climb(live, 8, prior_rows=STRONGER * self.prior_rows)
            live = self._climb(live, 4, prior_rows=1.0)
        live = self._chosen(live, math.ceil(len(live) / 2))
        live = self._climb(live, 6)
        live = self._chosen(live, math.ceil(len(live) / 2))
        n = self.effort.n_followed
        if n == 1:
            return self._chosen(live, n)
        return self._chosen(self._climb(live, 15, accelerate=True), n)

    def _chosen(self, live: Sequence[Candidate], n: int) -> list[Candidate]:
        """The best n of these; half of the places are for those of fewest spurious components."""
        order = best_first(live)
        kept = order[: n // 2]
        kept += self._better(order[n // 2 :], n - len(kept))
        return best_first(kept)

    def _better(self, candidates: Sequence[Candidate], n: int) -> list[Candidate]:
        """The best n: those of fewest spurious components, then of largest log-likelihood."""
        self.judge.look_at(candidates)
        return sorted(best_first(candidates), key=self.judge.n_marked)[:n]

    def _moved(self, best: Candidate) -> Candidate:
        """Where swaps lead to from an optimum."""
        failed, ways = 0, self._swaps(best)
        while failed < self._patience(best) and self.spent < self.most:
            tried = ways.next(self.effort.n_swaps)
            better = self._tried(best, tried)
            failed = failed + 1 if better is best else 0
            if better is not best:
                best, ways = better, self._swaps(better)
        return best

    def _patience(self, best: Candidate) -> int:
        """Attempts in vain after which an optimum is left: a spurious one is no place to end."""
        if not self.judge.is_admissible(best):
            return self.effort.n_attempts * MORE
        sound = [each.candidate.log_likelihood for each in self.optima if each.is_admissible]
        is_lower = max(sound, default=-math.inf) > best.log_likelihood + self.same
        return self.effort.n_attempts * (LOWER if is_lower else 1)

    def _swaps(self, parent: Candidate) -> Swaps:
        """The swaps from an optimum that were not tried yet."""
        for level, known in self.swaps:
            if abs(level - parent.log_likelihood) < self.same:
                return known
        marked = []
        if not self.judge.is_admissible(parent) and self.ground.covariance_type != "tied":
            marked = [j for j, _ in self.judge.marks(parent)]
        found = Swaps(self.ground, parent, marked, self.rng)
        self.swaps.append((parent.log_likelihood, found))
        return found

    def _tried(self, best: Candidate, tried: list[Candidate]) -> Candidate:
        """The best of what some tries end at, if that is better than what is known."""
        if not tried:
            return best
        live, is_sound = tried, self.judge.is_admissible(best)
        if not is_sound:
            live = self._climb(live, 8, prior_rows=STRONGER * self.prior_rows)
        live = self._climb(self._climb(live, 2, prior_rows=1.0), 10, accelerate=True)
        if is_sound:  # those of the largest likelihood are on their way back, or lead further
            live = self._chosen(leaving(self.ground, best, live), math.ceil(len(live) / 2))
            live = self._climb(live, 25, accelerate=True)
            live = self._chosen(leaving(self.ground, best, live), math.ceil(len(tried) / 4))
        else:
            live = self._better(live, math.ceil(len(tried) / 2))
        bar = self._bar(best) - self.margin
        live = [each for each in live if each.log_likelihood > bar]
        ended = self._climb(live, LONG, tol=self.settled, accelerate=True)
        if not ended:
            return best
        found = self._better(ended, 1)[0]
        mine, marked = self.judge.n_marked(found), self.judge.n_marked(best)
        is_more = found.log_likelihood > best.log_likelihood + self.same
        if mine < marked or (mine == marked == 0 and is_more):
            return replace(found, line=best.line)
        return best

    def _bar(self, best: Candidate) -> float:
        """What others must come up to: a spurious optimum is left even for a much lower one."""
        if self.judge.is_admissible(best):
            return best.log_likelihood
        sound = [each.candidate.log_likelihood for each in self.optima if each.is_admissible]
        return max(sound, default=-math.inf)

    def _crossed(self, best: Candidate, number: int) -> None:
        other = self.optima[0].candidate
        if abs(other.log_likelihood - best.log_likelihood) < self.same and other is not best:
            return
        if other is best:
            if len(self.optima) < 2:
                return
            other = self.optima[1].candidate
        top = self._better([best, other], 1)[0]
        tried = crossings(self.ground, (best, other), max(2, self.effort.n_swaps // 2), self.rng)
        found = self._tried(top, tried)
        if found is not top:
            self._keep(self._moved(found), number)

    def _keep(self, found: Candidate, number: int) -> None:
        """Count an optimum: as one that is known already, or as a new one."""
        for i, known in enumerate(self.optima):
            apart = abs(known.candidate.log_likelihood - found.log_likelihood)
            if apart < self.same and known.is_admissible == self.judge.is_admissible(found):
                better = best_first([known.candidate, found])[0]
                self.optima[i] = replace(
                    known,
                    candidate=better,
                    lines=known.lines | {found.line},
                    rounds=known.rounds | {number},
                )
                break
        else:
            n_marked = self.judge.n_marked(found)
            line, rounds = frozenset({found.line}), frozenset({number})
            self.optima.append(Optimum(found, line, rounds, n_marked))
        self.optima.sort(key=lambda each: each.rank, reverse=True)
