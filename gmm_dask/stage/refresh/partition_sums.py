"""The sums of each partition by one pass; what they are depends on that partition alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.engine import Backend, ChunkMap, RowChunks, Tell, tree_sum
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters, RowScores
from gmm_dask.mixture.row_arithmetic import RowArithmetic, incomplete_rows
from gmm_dask.sampling import weight_unit
from gmm_dask.stage.labels.chunk_labels import label_sums
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.storage import TENTHS, PartitionSums, Plan

Rows = npt.NDArray[Any]


class Under(NamedTuple):
    """What rows are looked at under.

    Parameters
    ----------
    parameters : Parameters
    arithmetic : RowArithmetic
    severities : Severities or None
        Rows are counted by the tenths of these severities.
    """

    parameters: Parameters
    arithmetic: RowArithmetic
    severities: Severities | None


def partition_sums(
    plan: Plan,
    chunks: RowChunks,
    backend: Backend,
    under: Under,
    tell: Tell | None = None,
) -> tuple[PartitionSums, ...]:
    """The sums under a mixture of each partition that has rows, in their order.

    A partition has the same bits whatever stands beside it: files that are read as one chunk are
    summed up each for itself, and the chunks of a large file are added by a tree of their own.

    Parameters
    ----------
    plan : Plan
    chunks : RowChunks
        Chunks of the plan.
    backend : Backend
    under : Under
    tell : callable, optional
        Called after each task.
    """
    if not plan.n_rows:
        return ()
    of_arrays = ChunkMap(chunks, backend, tell)("e_step", _of_chunk, under, list(chunks.pieces))
    pieces = (piece for array in of_arrays for piece in array)
    owned = zip((chunk.partition for chunk in plan.chunks), pieces, strict=True)
    return tuple(
        tree_sum(piece for _, piece in of_partition)
        for _, of_partition in groupby(owned, itemgetter(0))
    )


def total_of(sums: Sequence[PartitionSums]) -> PartitionSums:
    """The sums of all, by the tree over their order; raises DataError where there are none."""
    if not sums:
        raise DataError("No partition holds a row: there is nothing to fit.")
    return tree_sum(sums)


def _of_chunk(
    under: Under, lengths: Sequence[int], X: Rows, weights: Rows | None = None
) -> list[PartitionSums]:
    edges = pairwise(accumulate(lengths, initial=0))
    return list(_of_pieces(under, edges, X, weights))


def _of_pieces(
    under: Under, edges: Iterator[tuple[int, int]], X: Rows, weights: Rows | None
) -> Iterator[PartitionSums]:
    for start, stop in edges:
        yield _of_piece(under, X[start:stop], None if weights is None else weights[start:stop])


def _of_piece(under: Under, X: Rows, weights: Rows | None) -> PartitionSums:
    parameters, arithmetic, severities = under
    unit = 1.0 if weights is None else weight_unit(float(weights.max(initial=0.0)))
    usable = arithmetic.usable(X, weights)
    used, weight = X, weights
    if not usable.all():
        used, weight = X[usable], None if weights is None else weights[usable]
    spread, _ = arithmetic.spread_and_keys(used, weight)
    score: RowScores = arithmetic.score(used, parameters)
    if not np.isfinite(score.log_density).all():
        raise DataError(
            "A row of a new or changed partition is farther than 1e154 standard deviations from "
            "every component, where float64 has no density. Remove such rows, or correct their "
            "units."
        )
    n_incomplete = int(incomplete_rows(used).sum()) if arithmetic.missing == "em" else 0
    labels = label_sums(score, weight, parameters.n_components, len(X), n_incomplete)
    statistics = arithmetic.e_step(X, parameters, weights, unit=unit)
    tenths = np.zeros(TENTHS, np.int64)
    if severities is not None:
        severity = severities.of(score.log_density, arithmetic)
        at = np.minimum(severity // (100 / TENTHS), TENTHS - 1).astype(np.int64)
        tenths = np.bincount(at, minlength=TENTHS)
    n_missing = np.isnan(X).sum(axis=0)
    return PartitionSums(labels, statistics, spread.in_unit(unit), n_missing, tenths)
