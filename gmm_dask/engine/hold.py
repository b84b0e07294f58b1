"""Chunks that stay decoded between passes: a cache within a budget; the files are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Any

import dask.array as da
from dask.highlevelgraph import HighLevelGraph

from gmm_dask.engine.backends import Backend
from gmm_dask.engine.chunks import RowChunks


@dataclass(frozen=True, eq=False)
class Held:
    """Chunks of which the first ones are held where the work is done; the rest is read again.

    Parameters
    ----------
    chunks : RowChunks
    n_held : int
        Chunks held.
    bytes_held, bytes_read : int
        Decoded bytes that stay, and that every pass reads again.
    """

    chunks: RowChunks
    n_held: int
    bytes_held: int
    bytes_read: int


def hold(chunks: RowChunks, backend: Backend, budget: int) -> Held:
    """Read as many chunks as fit the budget, the first ones, and keep them decoded.

    Parameters
    ----------
    budget : int
        Bytes of decoded rows, at most, over all workers.

    Raises
    ------
    As the reading of the chunks does.
    """
    sizes = decoded_bytes(chunks)
    n_held = len(list(takewhile(lambda total: total <= budget, accumulate(sizes))))
    if n_held:
        graph, keys = chunks.tasks()
        held = backend.hold(graph, keys[:n_held], chunks.names)
        chunks = _with_nodes(chunks, _needed(graph, keys, held))
    return Held(chunks, n_held, sum(sizes[:n_held]), sum(sizes[n_held:]))


def decoded_bytes(chunks: RowChunks) -> list[int]:
    """Bytes of each chunk in memory; none are known where the lengths are not."""
    weight = 0 if chunks.weights is None else chunks.weights.dtype.itemsize
    row = chunks.n_features * chunks.X.dtype.itemsize + weight
    return [n * row for n in chunks.lengths or ()]


def _needed(
    graph: dict[Any, Any], keys: Sequence[tuple[Any, ...]], held: dict[Any, Any]
) -> dict[Any, Any]:
    """The nodes that the chunks still need, now that some of them are held."""
    nodes: dict[Any, Any] = {}
    waiting = [key for of_chunk in keys for key in of_chunk]
    while waiting:
        key = waiting.pop()
        if key in nodes:
            continue
        if key in held:
            nodes[key] = held[key]
        elif key in graph:
            nodes[key] = graph[key]
            waiting.extend(graph[key].dependencies)
    return nodes


def _with_nodes(chunks: RowChunks, nodes: dict[Any, Any]) -> RowChunks:
    X = _array(chunks.X, nodes)
    weights = None if chunks.weights is None else _array(chunks.weights, nodes)
    return replace(chunks, X=X, weights=weights)


def _array(array: da.Array, nodes: dict[Any, Any]) -> da.Array:
    graph = HighLevelGraph.from_collections(f"{array.name}-held", nodes)
    return da.Array(graph, array.name, array.chunks, meta=array._meta)
