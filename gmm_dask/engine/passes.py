"""Passes over the chunks: one fused task each, results in chunk order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.backends import Backend, Done
from gmm_dask.engine.chunk_map import ChunkMap, identity
from gmm_dask.engine.chunks import RowChunks
from gmm_dask.engine.reduce import tree_sum, tree_tasks
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters, SufficientStatistics, kernels
from gmm_dask.mixture import missing as incomplete
from gmm_dask.mixture.kernels import Arithmetic, Kernel
from gmm_dask.mixture.spread import weight_unit
from gmm_dask.mixture.statistics import statistics_bytes
from gmm_dask.mixture.steps import positive

GATHER_BYTES = 15 << 20  # above this the statistics of a pass are added up on the workers

Rows = npt.NDArray[Any]
Missing = Literal["error", "drop", "em"]


def expectation(
    chunks: RowChunks,
    backend: Backend,
    *,
    missing: Missing = "error",
    n_worst: int = 0,
    unit: float = 1.0,
    kernel: Kernel = "numpy",
) -> Expectation:
    """The function EM asks for statistics: every call is one pass over the chunks."""
    return Expectation(ChunkMap(chunks, backend), missing, n_worst, unit, kernel=kernel)


@dataclass(frozen=True, eq=False)
class Expectation:
    """parameters -> statistics of all rows; bitwise the same on every backend.

    Parameters
    ----------
    chunk_map : ChunkMap
    missing : {"error", "drop", "em"}
        Rows are taken as complete; those with NaN are left out; or NaN is a missing value.
    n_worst : int
        Rows that are explained worst, to bring along.
    unit : float
        The power of two that weights are divided by, so that none of their products with squares
        leaves float64; all the statistics are in it.
    n_rows : int, optional
        How many the rows stand for, where each is several.
    places : range, optional
        The chunks that it is of; all where not given.
    kernel : {"numpy", "compiled"}
        Which arithmetic complete rows go through.
    single : bool
        In single precision, which is the compiled kernel's alone.
    """

    chunk_map: ChunkMap
    missing: Missing = "error"
    n_worst: int = 0
    unit: float = 1.0
    n_rows: int | None = None
    kernel: Kernel = "numpy"
    places: tuple[int, ...] | None = None
    single: bool = False

    def in_single(self) -> Expectation | None:
        """The same pass in single precision; None where rows go through NumPy."""
        if self.kernel == "numpy" or self.missing == "em":
            return None
        return replace(self, single=True)

    def in_blocks(self, n_blocks: int) -> tuple[Expectation, ...]:
        """The same pass in parts, the chunks dealt out in turn; no more parts than chunks.

        Neighbouring chunks are often of one kind: so that each block is like all of the data, it
        has chunks from everywhere. Those that are planned to be read together stay together,
        whether they are held or not. Where rows stand for several, nothing is read: one block.
        """
        units = self.chunk_map.planned
        n = min(n_blocks, len(units)) if self.n_rows is None else 1
        parts = (units[b::n] for b in range(n))
        return tuple(
            replace(self, places=tuple(chunk for unit in part for chunk in unit)) for part in parts
        )

    def __call__(self, parameters: Parameters) -> SufficientStatistics:
        """One pass over its chunks: a task for each, and the fixed tree of `+`."""
        way = (self.missing, self.kernel)
        function = partial(_statistics, way, self.n_worst, self.unit, single=self.single)
        graph, keys = self.chunk_map.graph("e_step", function, parameters, None, self.places)
        n_chunks = len(self.chunk_map) if self.places is None else len(self.places)
        here = n_chunks * statistics_bytes(parameters) <= GATHER_BYTES
        if not here:
            apart, keys = self.chunk_map.tasks_in_chunks(keys, self.places)
            tasks, keys = tree_tasks(keys)
            graph |= apart | tasks
        parts = self.chunk_map.backend.compute(graph, keys, names=self.chunk_map.names)
        total: SufficientStatistics = tree_sum(
            self.chunk_map.in_chunks(parts, self.places) if here else parts
        )
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
    way = (missing, kernel_for(chunks, parameters.n_components))
    total: WeightedSum = tree_sum(
        ChunkMap(chunks, backend)(name, partial(function, way), parameters)
    )
    return total


def kernel_for(chunks: RowChunks, n_components: int) -> Kernel:
    """The kernel for all these rows together; NumPy where nobody knows how many they are."""
    return kernels.choose(sum(chunks.lengths or ()), n_components, chunks.n_features)


def warm_up(
    backend: Backend,
    kernel: Kernel,
    covariance_type: str,
    dtype: Any,
    arithmetic: Arithmetic = "double",
) -> float:
    """Have the kernel ready on every worker; the most seconds that took one of them."""
    if kernel == "numpy":
        return 0.0
    work = partial(kernels.warm_up, covariance_type, str(np.dtype(dtype)), arithmetic)
    return float(max(backend.everywhere(work)))


def warm_up_look(backend: Backend, kernel: Kernel, dtype: Any) -> float:
    """As `warm_up`, for the survey."""
    if kernel == "numpy":
        return 0.0
    return float(max(backend.everywhere(partial(kernels.warm_up_look, str(np.dtype(dtype))))))


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


def usable_rows(
    X: Rows, sample_weight: Rows | None = None, missing: Missing = "error"
) -> npt.NDArray[np.bool_]:
    """Rows that a fit can use, (n,): without a missing value, unless EM takes those too.

    Raises
    ------
    DataError
        A weight is negative, NaN or infinite.
    """
    if sample_weight is not None:
        positive(sample_weight)
    return np.ones(len(X), bool) if missing == "em" else ~incomplete_rows(X)


def incomplete_rows(X: Rows) -> npt.NDArray[np.bool_]:
    """Whether a row has a missing value, (n,): only where its sum is NaN they are looked for."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = X @ np.ones(X.shape[1], X.dtype)
    found = np.isnan(sums)
    if found.any():
        found[found] = np.isnan(X[found]).any(axis=1)  # infinities of either sign have no sum
    return np.asarray(found)


def _counted(
    X: Rows, sample_weight: Rows | None, missing: Missing
) -> tuple[Rows, Rows | None, int]:
    """The rows that count and their weights; and how many are used with those of weight 0.

    A row of weight 0 is absent, whatever stands in it.
    """
    if sample_weight is not None and sample_weight.shape != X.shape[:1]:
        raise DataError(f"{sample_weight.shape} weights were given for {X.shape[0]} rows.")
    if missing != "drop" and sample_weight is None:
        return X, None, len(X)
    counts = np.ones(len(X), bool) if missing != "drop" else usable_rows(X)
    n_rows = int(np.count_nonzero(counts))
    if sample_weight is not None:
        counts = counts & positive(sample_weight)
    if counts.all():
        return X, sample_weight, n_rows
    return X[counts], None if sample_weight is None else sample_weight[counts], n_rows


def _statistics(
    way: tuple[Missing, Kernel],
    n_worst: int,
    unit: float,
    parameters: Parameters,
    X: Rows,
    sample_weight: Rows | None = None,
    *,
    single: bool = False,
) -> SufficientStatistics:
    X, weight, n_rows = _counted(X, sample_weight, way[0])
    if weight is not None:
        weight = weight / unit
    e_step = partial(kernels.e_step, arithmetic="single") if single else arithmetic(*way).e_step
    found: SufficientStatistics = e_step(X, parameters, weight, n_worst)
    return found if len(X) == n_rows else replace(found, n_rows=n_rows)


def arithmetic(missing: Missing, kernel: Kernel) -> Any:
    """The module whose functions rows go through."""
    return incomplete if missing == "em" else kernels.module(kernel)


def _density_sum(
    way: tuple[Missing, Kernel], parameters: Parameters, X: Rows, sample_weight: Rows | None = None
) -> WeightedSum:
    unit = _unit(sample_weight)
    found = _statistics(way, 0, unit, parameters, X, sample_weight)
    return WeightedSum(found.sum_weight, found.log_likelihood, unit)


def _completed_sum(
    way: tuple[Missing, Kernel], parameters: Parameters, X: Rows, sample_weight: Rows | None = None
) -> WeightedSum:
    unit = _unit(sample_weight)
    X, weight, _ = _counted(X, sample_weight, way[0])
    scores = arithmetic(*way).score_rows(X, parameters)
    weight = np.ones(len(X)) if weight is None else weight / unit
    each = scores.log_density + np.log(scores.max_responsibility)
    return WeightedSum(float(weight.sum()), float(weight @ each), unit)


def _unit(sample_weight: Rows | None) -> float:
    """The unit of a chunk's weights: that of all is not known before they were looked at."""
    return 1.0 if sample_weight is None else weight_unit(float(sample_weight.max(initial=0.0)))
