"""Fits of different candidates that share every pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gmm_dask.fitting.choice.annihilation import Annihilation
from gmm_dask.fitting.choice.ranking import Candidate
from gmm_dask.fitting.em import Fit, advance
from gmm_dask.fitting.m_step import IN_TROUBLE
from gmm_dask.mixture import SufficientStatistics
from gmm_dask.sampling import Fold


@dataclass(frozen=True, eq=False)
class Member:
    """A fit that takes part in shared passes.

    Parameters
    ----------
    candidate : Candidate
    fit : Fit
        Its `maximise` is an object of its own, by which the fit is known after a pass.
    fold : Fold, optional
        The rows that it is a fit to; all of them where it is not given.
    start : {"own", "neighbours", "split"}
        Where it started: where it would alone; where a search led that begins from the ends of
        other numbers of components; or from a split of a mixture of fewer.
    """

    candidate: Candidate
    fit: Fit
    fold: Fold | None = None
    start: str = "own"

    @property
    def is_whole(self) -> bool:
        """Whether no component has died of minimum message length; others may be dropped."""
        dies = isinstance(self.fit.maximise, Annihilation)
        return not dies or self.fit.parameters.n_components == self.candidate.n_components


PassOfMembers = Callable[[Sequence[Member]], Sequence[SufficientStatistics]]


def at_their_ends(members: Sequence[Member], shared_pass: PassOfMembers) -> list[Member]:
    """The members after their last passes, without those whose components were in trouble.

    A member leaves when its fit is over, and no earlier: that another is ahead of it does not say
    that it cannot win, for EM has no bound on what its next passes gain.
    """
    known = {id(member.fit.maximise): member for member in members}

    def now(fit: Fit) -> Member:
        return replace(known[id(fit.maximise)], fit=fit)

    ended = advance(
        [member.fit for member in members],
        lambda fits: shared_pass([now(fit) for fit in fits]),
        leaving=IN_TROUBLE,
    )
    return [now(fit) for fit in ended]


def fallen(values: dict[Candidate, float], least: float) -> dict[Candidate, Candidate]:
    """Candidates of lower log-likelihood than others of fewer components, each with these.

    Parameters
    ----------
    values : dict of Candidate to float
        Log-likelihoods.
    least : float
        A fall of less is none that fits to their tolerance can tell.
    """
    found: dict[Candidate, Candidate] = {}
    best: dict[str, Candidate] = {}
    for candidate in sorted(values):
        before = best.get(candidate.covariance_type)
        if before is not None and values[candidate] < values[before] - least:
            found[candidate] = before
        elif before is None or values[candidate] > values[before]:
            best[candidate.covariance_type] = candidate
    return found
