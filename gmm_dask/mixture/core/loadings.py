"""Low-rank covariances by the core: their distances and sums, in the place of those of NumPy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from gmm_dask.mixture.core.library import Factors, address, aligned_zeros, call
from gmm_dask.mixture.covariance.family import Array, Rows
from gmm_dask.mixture.covariance.low_rank import LowRank, low_rank
from gmm_dask.mixture.parameters import Parameters

LINE = 8  # features side by side, as FEATURES of factors.hpp


class Lines(NamedTuple):
    """The arrays of all components, their features filled up to whole lines of p in all.

    Parameters
    ----------
    gains, loadings : (k, q, p)
    reciprocals : (k, p)
    """

    gains: Array
    loadings: Array
    reciprocals: Array


class CompiledLowRank(LowRank):
    """A low-rank family whose loops over rows are the core's."""

    @cached_property
    def _lines(self) -> Lines:
        k, d, q = self.loadings.shape
        p = -(-d // LINE) * LINE
        found = Lines(aligned_zeros(k, q, p), aligned_zeros(k, q, p), aligned_zeros(k, p))
        factors = self.precisions_cholesky
        found.gains[:, :, :d] = factors[:, :, :-1].swapaxes(1, 2)
        found.loadings[:, :, :d] = self.loadings.swapaxes(1, 2)
        found.reciprocals[:, :d] = factors[:, :, -1]
        return found

    def measure(self, X: Rows, means: Array, D: Array, work: Array, out: Array) -> None:
        """See CovarianceFamily."""
        rows = _side_by_side(X)
        call("gmm_measure_low_rank", self._record(rows, means, None, out, (None, None)))

    def add_sums(
        self, sums: tuple[Array, Array], X: Rows, means: Array, resp: Array, D: Array, work: Array
    ) -> None:
        """See CovarianceFamily."""
        rows = _side_by_side(X)
        call("gmm_sum_low_rank", self._record(rows, means, resp, None, sums))

    def _record(
        self,
        X: Rows,
        means: Array,
        resp: Array | None,
        squares: Array | None,
        sums: tuple[Array | None, Array | None],
    ) -> Factors:
        sizes = (*X.shape, self.n_components, self.rank, X.dtype == np.float32)
        return Factors(*sizes, *map(address, (X, means, *self._lines, resp, squares, *sums)))


def _side_by_side(X: Rows) -> Rows:
    kind = np.float32 if X.dtype == np.float32 else np.float64
    return np.require(X, kind, ("C", "A"))


@lru_cache(maxsize=4)
def compiled(parameters: Parameters) -> Parameters:
    """A mixture of low-rank covariances as one whose loops over rows are the core's."""
    family = parameters.family
    assert isinstance(family, LowRank)
    arrays = (family.covariances, family.precisions_cholesky)
    found = _compiled(family.rank)(family.n_components, family.n_features, *arrays)
    return replace(parameters, family=found)


@cache
def _compiled(rank: int) -> type[CompiledLowRank]:
    return type(f"CompiledLowRank{rank}", (CompiledLowRank, low_rank(rank)), {})
