"""What incremental EM remembers: the statistics of every block, as it was last read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.free_energy import about, expected_log_density, implied, times

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """One block as it was last read.

    Parameters
    ----------
    statistics : SufficientStatistics
    means : (k, d)
        What they were measured from.
    entropy : float
        What the block's log-likelihood has beyond E log p(x, z): that of its responsibilities.
    """

    statistics: SufficientStatistics
    means: Array
    entropy: float

    @classmethod
    def of(cls, statistics: SufficientStatistics, parameters: Parameters) -> Part:
        """The block as it was read just now, under these parameters."""
        expected = expected_log_density(statistics, parameters)
        return cls(statistics, parameters.means, statistics.log_likelihood - expected)


def summed(parts: Sequence[Part], parameters: Parameters) -> SufficientStatistics:
    """Statistics of all blocks about the means of the parameters.

    Their `log_likelihood` is the bound F: what these parameters have at least.
    """
    total = reduce(add, (about(part.statistics, part.means, parameters) for part in parts))
    entropy = sum(part.entropy for part in parts)
    return replace(total, log_likelihood=entropy + expected_log_density(total, parameters))


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
