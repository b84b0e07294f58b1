"""Passes over the chunks: one fused task each, results in chunk order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.backends import Backend, Done
from gmm_dask.engine.chunk_map import ChunkMap, identity
from gmm_dask.engine.chunks import RowChunks
from gmm_dask.engine.reduce import tree_sum, tree_tasks
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic
from gmm_dask.mixture.spread import weight_unit
from gmm_dask.mixture.statistics import statistics_bytes

DOUBLE = RowArithmetic()
GATHER_BYTES = 15 << 20  # above this the statistics of a pass are added up on the workers

Rows = npt.NDArray[Any]


def expectation(
    chunks: RowChunks,
    backend: Backend,
    *,
    arithmetic: RowArithmetic = DOUBLE,
    unit: float = 1.0,
) -> Expectation:
    """The function EM asks for statistics: every call is one pass over the chunks."""
    return Expectation(ChunkMap(chunks, backend), arithmetic, unit)


@dataclass(frozen=True, eq=False)
class Expectation:
    """parameters -> statistics of all rows; bitwise the same on every backend.

    Parameters
    ----------
    chunk_map : ChunkMap
    arithmetic : RowArithmetic
        What rows go through.
    unit : float
        The power of two that weights are divided by, so that none of their products with squares
        leaves float64; all the statistics are in it.
    n_rows : int, optional
        How many the rows stand for, where each is several.
    """

    chunk_map: ChunkMap
    arithmetic: RowArithmetic = DOUBLE
    unit: float = 1.0
    n_rows: int | None = None

    def in_single(self) -> Expectation | None:
        """The pass in single precision; None where rows go through NumPy."""
        single = self.arithmetic.in_single()
        return None if single is None else replace(self, arithmetic=single)

    def __call__(self, parameters: Parameters) -> SufficientStatistics:
        """One pass over its chunks: a task for each, and the fixed tree of `+`."""
        function = partial(_statistics, self.arithmetic, self.unit)
        graph, keys = self.chunk_map.graph("e_step", function, parameters, None)
        here = len(self.chunk_map) * statistics_bytes(parameters) <= GATHER_BYTES
        if not here:
            apart, keys = self.chunk_map.tasks_in_chunks(keys)
            tasks, keys = tree_tasks(keys)
            graph |= apart | tasks
        parts = self.chunk_map.backend.compute(graph, keys, names=self.chunk_map.names)
        total: SufficientStatistics = tree_sum(self.chunk_map.in_chunks(parts) if here else parts)
        return total if self.n_rows is None else replace(total, n_rows=self.n_rows)


@dataclass(frozen=True)
class WeightedSum:
    """A weighted sum over rows, in a power of two of its own: no weight is too large or small.

    Parameters
    ----------
    weight : float
        Sum of the weights, in `unit`.
    total : float
        Weighted sum, in `unit`.
    unit : float
    """

    weight: float
    total: float
    unit: float = 1.0

    def __add__(self, other: WeightedSum) -> WeightedSum:
        unit = max(self.unit, other.unit)
        mine, theirs = self.unit / unit, other.unit / unit
        return WeightedSum(
            self.weight * mine + other.weight * theirs,
            self.total * mine + other.total * theirs,
            unit,
        )

    @property
    def mean(self) -> float:
        """Per unit of weight, whatever the weights' scale."""
        return self.total / self.weight

    @property
    def value(self) -> float:
        """The sum; infinite where it is beyond float64."""
        return self.total * self.unit

    @property
    def log_weight(self) -> float:
        """Log of the sum of the weights."""
        return math.log(self.weight) + math.log(self.unit)


def log_likelihood(
    chunks: RowChunks, backend: Backend, parameters: Parameters, missing: Missing = "error"
) -> WeightedSum:
    """The sum of the rows' log-densities."""
    return _summed("score", _density_sum, chunks, backend, parameters, missing)


def completed_log_likelihood(
    chunks: RowChunks, backend: Backend, parameters: Parameters, missing: Missing = "error"
) -> WeightedSum:
    """The sum of log-density plus log largest responsibility of each row."""
    return _summed("icl", _completed_sum, chunks, backend, parameters, missing)


def _summed(
    name: str,
    function: Callable[..., WeightedSum],
    chunks: RowChunks,
    backend: Backend,
    parameters: Parameters,
    missing: Missing,
) -> WeightedSum:
    arithmetic = RowArithmetic.chosen(missing)
    total: WeightedSum = tree_sum(
        ChunkMap(chunks, backend)(name, partial(function, arithmetic), parameters)
    )
    return total


def map_items(
    name: str,
    function: Callable[..., Any],
    items: Sequence[Any],
    backend: Backend,
    *,
    common: Any = None,
    on_done: Done | None = None,
    names: Sequence[str] | None = None,
) -> list[Any]:
    """`function(common, item)` for every item, one task each; results in the order of items.

    Parameters
    ----------
    names : sequence of str, optional
        What each item is called in messages.
    """
    token = uuid4().hex
    common_key = f"{name}_input-{token}"
    graph: dict[Any, GraphNode] = {common_key: Task(common_key, identity, common)}
    keys = []
    for i, item in enumerate(items):
        key = (f"{name}-{token}", i)
        graph[key] = Task(key, function, TaskRef(common_key), item)
        keys.append(key)
    return backend.compute(graph, keys, on_done, names)


def _statistics(
    arithmetic: RowArithmetic,
    unit: float,
    parameters: Parameters,
    X: Rows,
    sample_weight: Rows | None = None,
) -> SufficientStatistics:
    return arithmetic.e_step(X, parameters, sample_weight, unit=unit)


def _density_sum(
    arithmetic: RowArithmetic,
    parameters: Parameters,
    X: Rows,
    sample_weight: Rows | None = None,
) -> WeightedSum:
    unit = _unit(sample_weight)
    found = arithmetic.e_step(X, parameters, sample_weight, unit=unit)
    return WeightedSum(found.sum_weight, found.log_likelihood, unit)


def _completed_sum(
    arithmetic: RowArithmetic,
    parameters: Parameters,
    X: Rows,
    sample_weight: Rows | None = None,
) -> WeightedSum:
    unit = _unit(sample_weight)
    X, weight, _ = arithmetic.counted(X, sample_weight)
    scores = arithmetic.score(X, parameters)
    weight = np.ones(len(X)) if weight is None else weight / unit
    each = scores.log_density + np.log(scores.max_responsibility)
    return WeightedSum(float(weight.sum()), float(weight @ each), unit)


def _unit(sample_weight: Rows | None) -> float:
    """The unit of a chunk's weights: that of all is not known before they were looked at."""
    return 1.0 if sample_weight is None else weight_unit(float(sample_weight.max(initial=0.0)))
