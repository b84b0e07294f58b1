"""Rows that users give, Dask arrays among them, as read units: one block is one unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef
from dask.base import is_dask_collection
from dask.highlevelgraph import HighLevelGraph

from gmm_dask.engine.passes.units import (
    CHUNK_BYTES,
    Chunk,
    RowChunks,
    Rows,
    Unit,
    even_lengths,
    rows_at_hand,
)
from gmm_dask.errors import DataError

if TYPE_CHECKING:
    import dask.array as da

SHARED = -1


def row_chunks(X: Any, sample_weight: Any = None, chunk_bytes: int = CHUNK_BYTES) -> RowChunks:
    """Rows given by a user, as RowChunks.

    Parameters
    ----------
    X : (n, d) NumPy array, Dask array with any chunks, Dask DataFrame, or what numpy.asarray takes
    sample_weight : (n,), optional
    chunk_bytes : int
        Size of the chunks that arrays in memory are cut into.
    """
    X, weights = (_array_of(each) for each in (X, sample_weight))
    is_lazy = is_dask_collection(X)
    X = _floating(X if is_lazy else np.asarray(X))
    if X.ndim != 2:
        raise DataError(f"X must have two axes, rows and features; it has {X.ndim}.")
    if X.shape[1] == 0 or math.isnan(X.shape[1]):
        raise DataError("X must have at least one feature, and their number must be known.")
    if is_lazy:
        X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
        return _lazy_rows(X, _weights(weights, X.shape[0], X.chunks[0]))
    lengths = even_lengths(X.shape[0], X.shape[1], chunk_bytes)
    weights = _weights(weights, X.shape[0], lengths)
    if not is_dask_collection(weights):
        return rows_at_hand(X, weights, lengths)
    import dask.array as da

    return _lazy_rows(da.from_array(X, chunks=(lengths, -1), name=False), weights)


def _array_of(rows: Any) -> Any:
    return rows.to_dask_array() if hasattr(rows, "to_dask_array") else rows


def _floating(X: Any) -> Any:
    return X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)


def _weights(weights: Any, n_rows: float, lengths: Sequence[float]) -> Any:
    """The weights with the chunks of the rows, or in memory; None where there are none."""
    if weights is None:
        return None
    if not is_dask_collection(weights):
        weights = np.asarray(weights, dtype=np.float64)
        if math.isnan(n_rows) or weights.shape != (n_rows,):
            raise DataError(
                f"sample_weight has shape {weights.shape}; it must have one value for each of "
                f"the {n_rows} rows (for Dask rows of unknown length, give Dask weights, such as "
                "a column of the same DataFrame)."
            )
        return weights
    if weights.ndim != 1:
        raise DataError(
            f"sample_weight must have one axis, one value a row; it has {weights.ndim}."
        )
    known = not (math.isnan(n_rows) or math.isnan(weights.shape[0]))
    if known and weights.shape[0] == n_rows:
        return weights.rechunk((tuple(lengths),))
    if known or weights.numblocks[0] != len(lengths):
        raise DataError(
            f"sample_weight has {weights.shape[0]} values in {weights.numblocks[0]} chunks for "
            f"{n_rows} rows in {len(lengths)} chunks: give one value for each row, chunked "
            "as the rows are."
        )
    return weights


def _lazy_rows(X: da.Array, weights: Any) -> RowChunks:
    """A Dask array, and weights of Dask or in memory, as units of one chunk each.

    What only one block needs runs in the task that works on its rows, so that the memory of a task
    is that of one block; what several need stays a node, and is computed once a pass.
    """
    lazy = [each for each in (X, weights) if is_dask_collection(each)]
    keys = [(X.name, i, 0) for i in range(X.numblocks[0])]
    of_chunks: list[tuple[Any, ...]] = [(key,) for key in keys]
    if len(lazy) > 1:
        of_chunks = [(key, (weights.name, i)) for i, key in enumerate(keys)]
    graph: Any = HighLevelGraph.merge(*(each.dask for each in lazy))
    graph = dict(X.__dask_optimize__(graph, [key for chunk in of_chunks for key in chunk]))
    lengths = [None if math.isnan(n) else int(n) for n in X.chunks[0]]
    own = private_nodes(graph, of_chunks)
    in_memory = iter(_cut(None if len(lazy) > 1 else weights, lengths))
    units = tuple(
        _unit(i, chunk, nodes, length, next(in_memory))
        for i, (chunk, nodes, length) in enumerate(zip(of_chunks, own, lengths, strict=True))
    )
    private = {node.key for nodes in own for node in nodes}
    return RowChunks(
        units,
        int(X.shape[1]),
        str(X.dtype),
        None if weights is None else str(weights.dtype),
        shared={key: node for key, node in graph.items() if key not in private},
    )


def _cut(weights: Rows | None, lengths: Sequence[int | None]) -> Iterator[Rows | None]:
    start = 0
    for n in lengths:
        yield None if weights is None else weights[start : start + (n or 0)]
        start += n or 0


def _unit(
    index: int,
    keys: tuple[Any, ...],
    nodes: Sequence[GraphNode],
    length: int | None,
    weights: Rows | None,
) -> Unit:
    """The unit of one block; its weights are in memory, or have a key of their own."""
    pair = Task(("chunk", index), partial(_pair, weights), *map(TaskRef, keys))
    task = Task.fuse(*nodes, pair, key=("chunk", index))
    needs = tuple(sorted(task.dependencies, key=str))
    return Unit(_Block(task, needs), (length,), needs)


@dataclass(frozen=True, eq=False)
class _Block:
    """Makes one block by the tasks that only this block needs.

    Parameters
    ----------
    task : GraphNode
    needs : tuple of keys
        What the task needs of others.
    """

    task: GraphNode
    needs: tuple[Any, ...]

    def __call__(self, *values: Any) -> Iterator[Chunk]:
        """The block as one chunk."""
        yield self.task(dict(zip(self.needs, values, strict=True)))


def _pair(in_memory: Rows | None, X: Rows, weights: Rows | None = None) -> Chunk:
    return X, in_memory if weights is None else weights


def private_nodes(
    graph: Mapping[Any, GraphNode], chunk_keys: Sequence[tuple[Any, ...]]
) -> list[list[GraphNode]]:
    """For each chunk the tasks that only its arrays need, and that nothing forbids to fuse.

    Data held in memory and tasks that several chunks need stay nodes of their own.
    """
    owner: dict[Any, int] = {}
    for chunk, keys in enumerate(chunk_keys):
        for key in keys:
            _claim(key, chunk, graph, owner)
    for key, node in graph.items():
        if owner.get(key, SHARED) != SHARED and not _can_be_fused(node):
            _claim(key, SHARED, graph, owner)
    found: list[list[GraphNode]] = [[] for _ in chunk_keys]
    for key, chunk in owner.items():
        if chunk != SHARED:
            found[chunk].append(graph[key])
    return found


def _claim(key: Any, chunk: int, graph: Mapping[Any, GraphNode], owner: dict[Any, int]) -> None:
    """Note that the chunk needs the key and what leads to it; keys of two chunks are shared."""
    waiting = [(key, chunk)]
    while waiting:
        key, chunk = waiting.pop()
        before = owner.get(key)
        if key not in graph or before in (chunk, SHARED):
            continue
        owner[key] = chunk if before is None else SHARED
        waiting.extend((each, owner[key]) for each in graph[key].dependencies)


def _can_be_fused(node: GraphNode) -> bool:
    if isinstance(node, DataNode):
        return False
    return isinstance(node, Alias) or (isinstance(node, Task) and not node.block_fusion)
