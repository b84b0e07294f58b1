"""Chunks that stay decoded between passes: a cache within a budget; the files are the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from dask._task_spec import DataNode, Task, TaskRef

from gmm_dask.engine.cache.scratch import put_in_scratch
from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.passes.chunks import RowChunks, Stream

Rows = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Held:
    """Chunks of which some are held where the work is done; the rest is read again.

    Parameters
    ----------
    chunks : RowChunks
    n_held, n_scratch : int
        Chunks held in memory, and in scratch.
    bytes_held, bytes_scratch : int
        Decoded bytes of these.
    bytes_once : int
        Decoded before the first pass.
    bytes_read : int
        That every pass decodes again.
    trouble : str or None
        Why some that were to be in scratch are not.
    """

    chunks: RowChunks
    n_held: int
    bytes_held: int
    bytes_read: int
    n_scratch: int = 0
    bytes_scratch: int = 0
    bytes_once: int = 0
    trouble: str | None = None


def hold(chunks: RowChunks, backend: Backend, budget: int, scratch: str | None = None) -> Held:
    """Read as many chunks as fit the budget, the first ones, and keep them decoded.

    Chunks that are read together stay together; they are passed over where one task has not the
    memory for all of them.

    Parameters
    ----------
    budget : int
        Bytes of decoded rows, at most, over all workers.
    scratch : str, optional
        Folder on a local disk of whoever works, for the chunks beyond.

    Raises
    ------
    SettingsError
        That folder cannot be written.
    As the reading of the chunks does.
    """
    sizes, units = decoded_bytes(chunks), chunks.units
    if not sizes:
        return Held(chunks, 0, 0, 0)
    totals = accumulate(sum(sizes[i] for i in unit) for unit in units)
    fitting = units[: sum(1 for _ in takewhile(lambda total: total <= budget, totals))]
    streams = {stream.start: stream for stream in chunks.streams}
    largest = backend.memory_of_task if streams else 0
    chosen = [
        unit
        for unit in fitting
        if unit.start not in streams or sum(sizes[i] for i in unit) <= largest
    ]
    n_held, n_bytes = sum(map(len, chosen)), sum(sizes[i] for unit in chosen for i in unit)
    if chosen:
        graph, keys = chunks.tasks()
        for unit in chosen:
            if unit.start in streams:
                graph |= _read_together(streams.pop(unit.start), keys)
        nodes = backend.hold(graph, [keys[i] for unit in chosen for i in unit], chunks.names)
        chunks = replace(chunks, streams=tuple(streams.values()))
        chunks = chunks.with_graph(f"{chunks.X.name}-held", _needed(graph, keys, nodes))
    held = Held(chunks, n_held, n_bytes, sum(sizes) - n_bytes, bytes_once=n_bytes)
    return held if scratch is None else _in_scratch(held, backend, scratch, sizes)


def _in_scratch(held: Held, backend: Backend, folder: str, sizes: Sequence[int]) -> Held:
    found = put_in_scratch(held.chunks, backend, folder)
    n_bytes = sum(sizes[i] for unit in found.units for i in unit)
    return replace(
        held,
        chunks=found.chunks,
        n_scratch=sum(map(len, found.units)),
        bytes_scratch=n_bytes,
        bytes_read=held.bytes_read - n_bytes,
        bytes_once=sum(sizes),
        trouble=found.trouble,
    )


def _read_together(stream: Stream, keys: Sequence[tuple[Any, ...]]) -> dict[Any, Any]:
    """Tasks for the chunks of a stream: one reads all, the others take theirs."""
    read = (f"read_stream-{uuid4().hex}", stream.start)
    tasks: dict[Any, Any] = {read: Task(read, _all_of, stream.read)}
    for place, chunk in enumerate(range(stream.start, stream.stop)):
        for which, key in enumerate(keys[chunk]):
            tasks[key] = Task(key, _taken, TaskRef(read), place, which)
    return tasks


def _all_of(read: Callable[[], Iterator[Any]]) -> list[Any]:
    return list(read())


def _taken(parts: list[Any], place: int, which: int) -> Any:
    return parts[place][which]


def decoded_bytes(chunks: RowChunks) -> list[int]:
    """Bytes of each chunk in memory; none are known where the lengths are not."""
    return [n * chunks.row_bytes for n in chunks.lengths or ()]


def rows_here(chunks: RowChunks) -> list[Rows | None]:
    """The rows of each piece that this process holds decoded; None where it does not."""
    nodes = dict(chunks.X.dask)
    found: list[Rows | None] = []
    for i, lengths in enumerate(chunks.pieces or ((n,) for n in chunks.lengths or ())):
        node = nodes.get((chunks.X.name, i, 0))
        X = node.value if isinstance(node, DataNode) else None
        if not isinstance(X, np.ndarray):  # elsewhere, or nowhere
            found += [None] * len(lengths)
            continue
        found += np.split(X, np.cumsum(lengths)[:-1])
    return found


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
