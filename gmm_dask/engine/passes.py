"""Passes over the chunks: one fused task each, results in chunk order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.backends import Backend, Done
from gmm_dask.engine.chunks import RowChunks
from gmm_dask.engine.fusion import private_nodes
from gmm_dask.engine.reduce import tree_sum, tree_tasks
from gmm_dask.mixture import Parameters, SufficientStatistics, steps
from gmm_dask.mixture import missing as incomplete
from gmm_dask.mixture.statistics import statistics_bytes

GATHER_BYTES = 15 << 20  # above this the statistics of a pass are added up on the workers

Rows = npt.NDArray[Any]
Missing = Literal["error", "drop", "em"]


class ChunkMap:
    """Applies a function to every chunk, fused with whatever makes the chunk, one task each."""

    def __init__(self, chunks: RowChunks, backend: Backend) -> None:
        self.backend = backend
        graph, self._chunk_keys = chunks.tasks()
        self._private = private_nodes(graph, self._chunk_keys)
        private = {node.key for nodes in self._private for node in nodes}
        self._shared = {key: node for key, node in graph.items() if key not in private}

    def __len__(self) -> int:
        return len(self._chunk_keys)

    def graph(
        self, name: str, function: Callable[..., Any], common: Any, each: Sequence[Any] | None
    ) -> tuple[dict[Any, GraphNode], list[Any]]:
        """Tasks `function(common[, each[i]], *arrays of chunk i)` and their keys.

        `common` travels as one small task, so that a worker that was lost can be replaced.
        """
        token = uuid4().hex
        common_key = f"{name}_input-{token}"
        graph: dict[Any, GraphNode] = dict(self._shared)
        graph[common_key] = Task(common_key, _identity, common)
        keys = []
        for i, arrays in enumerate(self._chunk_keys):
            key = (f"{name}-{token}", i)
            extra = () if each is None else (each[i],)
            refs = (TaskRef(array) for array in arrays)
            task = Task(key, function, TaskRef(common_key), *extra, *refs)
            graph[key] = Task.fuse(*self._private[i], task, key=key)
            keys.append(key)
        return graph, keys

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        common: Any,
        each: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Results in chunk order."""
        return self.backend.compute(*self.graph(name, function, common, each))


def expectation(
    chunks: RowChunks, backend: Backend, *, missing: Missing = "error", n_worst: int = 0
) -> Expectation:
    """The function EM asks for statistics: every call is one pass over the chunks."""
    return Expectation(ChunkMap(chunks, backend), missing, n_worst)


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
    """

    chunk_map: ChunkMap
    missing: Missing = "error"
    n_worst: int = 0

    def __call__(self, parameters: Parameters) -> SufficientStatistics:
        """One pass: a task per chunk, and the fixed tree of `+`."""
        function = partial(_E_STEPS[self.missing], self.n_worst)
        graph, keys = self.chunk_map.graph("e_step", function, parameters, None)
        if len(keys) * statistics_bytes(parameters) > GATHER_BYTES:
            tasks, keys = tree_tasks(keys)
            graph.update(tasks)
        total: SufficientStatistics = tree_sum(self.chunk_map.backend.compute(graph, keys))
        return total


def completed_log_likelihood(
    chunks: RowChunks, backend: Backend, parameters: Parameters, missing: Missing = "error"
) -> tuple[float, float]:
    """Total weight, and weighted sum of log density plus log largest responsibility of each row."""
    parts = ChunkMap(chunks, backend)("icl", partial(_completed_sums, missing), parameters)
    weight, total = tree_sum(parts)
    return float(weight), float(total)


def map_items(
    name: str,
    function: Callable[..., Any],
    items: Sequence[Any],
    backend: Backend,
    *,
    common: Any = None,
    on_done: Done | None = None,
) -> list[Any]:
    """`function(common, item)` for every item, one task each; results in the order of items."""
    token = uuid4().hex
    common_key = f"{name}_input-{token}"
    graph: dict[Any, GraphNode] = {common_key: Task(common_key, _identity, common)}
    keys = []
    for i, item in enumerate(items):
        key = (f"{name}-{token}", i)
        graph[key] = Task(key, function, TaskRef(common_key), item)
        keys.append(key)
    return backend.compute(graph, keys, on_done)


def usable_rows(
    X: Rows, sample_weight: Rows | None = None, missing: Missing = "error"
) -> npt.NDArray[np.bool_]:
    """Rows that a fit can use, (n,): without a missing value, unless EM takes those too."""
    usable = np.ones(len(X), bool) if missing == "em" else ~np.isnan(X).any(axis=1)
    if sample_weight is not None:
        usable &= ~np.isnan(sample_weight)
    return np.asarray(usable)


def _e_step(
    n_worst: int, parameters: Parameters, X: Rows, sample_weight: Rows | None = None
) -> SufficientStatistics:
    return steps.e_step(X, parameters, sample_weight, n_worst)


def _e_step_of_complete(
    n_worst: int, parameters: Parameters, X: Rows, sample_weight: Rows | None = None
) -> SufficientStatistics:
    usable = usable_rows(X, sample_weight)
    if usable.all():
        return steps.e_step(X, parameters, sample_weight, n_worst)
    weight = None if sample_weight is None else sample_weight[usable]
    return steps.e_step(X[usable], parameters, weight, n_worst)


def _e_step_of_incomplete(
    n_worst: int, parameters: Parameters, X: Rows, sample_weight: Rows | None = None
) -> SufficientStatistics:
    return incomplete.e_step(X, parameters, sample_weight, n_worst)


_E_STEPS: dict[Missing, Callable[..., SufficientStatistics]] = {
    "error": _e_step,
    "drop": _e_step_of_complete,
    "em": _e_step_of_incomplete,
}


def _completed_sums(
    missing: Missing, parameters: Parameters, X: Rows, sample_weight: Rows | None = None
) -> npt.NDArray[np.float64]:
    usable = np.ones(len(X), bool) if missing == "error" else usable_rows(X, sample_weight, missing)
    module: Any = incomplete if missing == "em" else steps
    scores = module.score_rows(X if usable.all() else X[usable], parameters)
    weight = np.ones(len(scores.labels)) if sample_weight is None else sample_weight[usable]
    each = scores.log_density + np.log(scores.max_responsibility)
    return np.array([weight.sum(), weight @ np.where(weight > 0, each, 0.0)])


def _identity(value: Any) -> Any:
    return value
