"""Passes over the chunks: one fused task each, results in chunk order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode, Task, TaskRef
from dask.optimization import cull

from gmm_dask.engine.backends import Backend, Done
from gmm_dask.engine.chunks import RowChunks
from gmm_dask.engine.fusion import private_nodes
from gmm_dask.engine.reduce import tree_sum, tree_tasks
from gmm_dask.errors import DataError
from gmm_dask.mixture import Parameters, SufficientStatistics, kernels
from gmm_dask.mixture import missing as incomplete
from gmm_dask.mixture.kernels import Kernel
from gmm_dask.mixture.spread import weight_unit
from gmm_dask.mixture.statistics import statistics_bytes
from gmm_dask.mixture.steps import positive

GATHER_BYTES = 15 << 20  # above this the statistics of a pass are added up on the workers

Rows = npt.NDArray[Any]
Missing = Literal["error", "drop", "em"]


class ChunkMap:
    """Applies a function to every chunk, fused with whatever makes it: one task for each unit."""

    def __init__(self, chunks: RowChunks, backend: Backend) -> None:
        self.backend, self.names = backend, chunks.names
        graph, self._chunk_keys = chunks.tasks()
        self.planned, self._units = chunks.planned_units, chunks.units
        self._reads = {each.start: each.read for each in chunks.streams}
        self._private = private_nodes(graph, self._chunk_keys)
        private = {node.key for nodes in self._private for node in nodes}
        self._shared = {key: node for key, node in graph.items() if key not in private}

    def __len__(self) -> int:
        return len(self._chunk_keys)

    def graph(
        self,
        name: str,
        function: Callable[..., Any],
        common: Any,
        each: Sequence[Any] | None,
        places: Sequence[int] | None = None,
    ) -> tuple[dict[Any, GraphNode], list[Any]]:
        """Tasks `function(common[, each[i]], *arrays of chunk i)` and their keys.

        `common` travels as one small task, so that a worker that was lost can be replaced. The task
        of a stream has a list of what the function returns for each of its chunks.

        Parameters
        ----------
        places : sequence of int, optional
            Which chunks, of a stream all or none, in ascending order; all where not given.
        """
        token = uuid4().hex
        common_key = f"{name}_input-{token}"
        graph: dict[Any, GraphNode] = dict(self._shared)
        graph[common_key] = Task(common_key, _identity, common)
        keys = []
        for unit in self._chosen(places):
            key, i = (f"{name}-{token}", unit.start), unit.start
            extra = [() if each is None else (each[chunk],) for chunk in unit]
            if i in self._reads:
                read = self._reads[i]
                graph[key] = Task(key, _streamed, function, read, extra, TaskRef(common_key))
            else:
                refs = (TaskRef(array) for array in self._chunk_keys[i])
                task = Task(key, function, TaskRef(common_key), *extra[0], *refs)
                graph[key] = Task.fuse(*self._private[i], task, key=key)
            keys.append(key)
        return (graph if places is None else dict(cull(graph, keys)[0])), keys

    def _chosen(self, places: Sequence[int] | None) -> list[range]:
        chosen = None if places is None else frozenset(places)
        return [unit for unit in self._units if chosen is None or unit.start in chosen]

    def in_chunks(self, values: Sequence[Any], places: Sequence[int] | None = None) -> list[Any]:
        """The values of the tasks, chunk by chunk."""
        return [
            value
            for unit, found in zip(self._chosen(places), values, strict=True)
            for value in (found if unit.start in self._reads else (found,))
        ]

    def tasks_in_chunks(
        self, keys: Sequence[Any], places: Sequence[int] | None = None
    ) -> tuple[dict[Any, GraphNode], list[Any]]:
        """The same on the workers: tasks that take the lists apart, and a key for each chunk."""
        apart: dict[Any, GraphNode] = {}
        found = []
        for unit, key in zip(self._chosen(places), keys, strict=True):
            if unit.start not in self._reads:
                found.append(key)
                continue
            for place, chunk in enumerate(unit):
                part = (f"part_of_{key[0]}", chunk)
                apart[part] = Task(part, itemgetter(place), TaskRef(key))
                found.append(part)
        return apart, found

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        common: Any,
        each: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Results in chunk order."""
        graph, keys = self.graph(name, function, common, each)
        return self.in_chunks(self.backend.compute(graph, keys, names=self.names))


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
    """

    chunk_map: ChunkMap
    missing: Missing = "error"
    n_worst: int = 0
    unit: float = 1.0
    n_rows: int | None = None
    kernel: Kernel = "numpy"
    places: tuple[int, ...] | None = None

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
        function = partial(_statistics, (self.missing, self.kernel), self.n_worst, self.unit)
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


def warm_up(backend: Backend, kernel: Kernel, covariance_type: str, dtype: Any) -> float:
    """Have the kernel ready on every worker; the most seconds that took one of them."""
    if kernel == "numpy":
        return 0.0
    work = partial(kernels.warm_up, covariance_type, str(np.dtype(dtype)))
    return float(max(backend.everywhere(work)))


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
    graph: dict[Any, GraphNode] = {common_key: Task(common_key, _identity, common)}
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
    return np.ones(len(X), bool) if missing == "em" else ~any_in_row(np.isnan(X))


def any_in_row(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether any value of a row is true, (n,); quick where none is at all."""
    return np.asarray(mask.any(axis=1) if mask.any() else np.zeros(len(mask), bool))


def _counted(
    X: Rows, sample_weight: Rows | None, missing: Missing
) -> tuple[Rows, Rows | None, int]:
    """The rows that count and their weights; and how many are used with those of weight 0.

    A row of weight 0 is absent, whatever stands in it.
    """
    if sample_weight is not None and sample_weight.shape != X.shape[:1]:
        raise DataError(f"{sample_weight.shape} weights were given for {X.shape[0]} rows.")
    counts = np.ones(len(X), bool) if missing != "drop" else usable_rows(X)
    n_rows = int(counts.sum())
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
) -> SufficientStatistics:
    X, weight, n_rows = _counted(X, sample_weight, way[0])
    if weight is not None:
        weight = weight / unit
    module = arithmetic(*way)
    found: SufficientStatistics = module.e_step(X, parameters, weight, n_worst)
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


def _streamed(
    function: Callable[..., Any],
    read: Callable[[], Iterator[tuple[Any, Any]]],
    extra: Sequence[tuple[Any, ...]],
    common: Any,
) -> list[Any]:
    """What the function returns for each chunk; of the rows only one chunk is in memory."""
    # `map` and not a loop, whose variable would hold a chunk while the next one is read.
    return list(map(partial(_applied, function, common), extra, read()))


def _applied(
    function: Callable[..., Any], common: Any, extra: tuple[Any, ...], arrays: tuple[Any, Any]
) -> Any:
    X, weights = arrays
    return function(common, *extra, X) if weights is None else function(common, *extra, X, weights)


def _identity(value: Any) -> Any:
    return value
