"""What incremental EM remembers: the statistics of every block, as it was last read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.free_energy import about, gain, implied, times


@dataclass(frozen=True, eq=False)
class Part:
    """One block as it was last read.

    Parameters
    ----------
    statistics : SufficientStatistics
    parameters : Parameters
        What they were taken under.
    """

    statistics: SufficientStatistics
    parameters: Parameters

    def bound(self, parameters: Parameters) -> float:
        """What the block's log-likelihood is at least under these parameters."""
        found = self.statistics.log_likelihood
        return found + gain(self.statistics, self.parameters, parameters)


def summed(parts: Sequence[Part], parameters: Parameters) -> SufficientStatistics:
    """Statistics of all blocks about the means of the parameters.

    Their `log_likelihood` is the bound F: what these parameters have at least.
    """
    moved = (about(part.statistics, part.parameters.means, parameters) for part in parts)
    bound = sum(part.bound(parameters) for part in parts)
    return replace(reduce(add, moved), log_likelihood=bound)


@dataclass(frozen=True, eq=False)
class Lead:
    """An extrapolation, as what it takes for the remembered blocks to lead there.

    Parameters
    ----------
    settled, ahead : Parameters
        Where the blocks lead by themselves, and where they are to.
    """

    settled: Parameters
    ahead: Parameters

    def of(
        self, n_read: int, parts: Sequence[Part], parameters: Parameters
    ) -> SufficientStatistics:
        """What the blocks beyond the first n_read lack; these were read again and lack nothing."""
        lacking = sum(part.statistics.sum_weight for part in parts[n_read:])
        there = implied(self.ahead, lacking, parameters)
        return there + times(-1.0, implied(self.settled, lacking, parameters))
