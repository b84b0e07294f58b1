"""A function of every chunk: one task for each unit, fused with whatever makes the chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any
from uuid import uuid4

from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.cache.scratch import Scratch
from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.passes.chunks import Read, RowChunks
from gmm_dask.engine.passes.fusion import private_nodes


class ChunkMap:
    """Applies a function to every chunk, fused with whatever makes it: one task for each unit."""

    def __init__(self, chunks: RowChunks, backend: Backend) -> None:
        self.backend, self.names = backend, chunks.names
        graph, self._chunk_keys = chunks.tasks()
        self._units = chunks.units
        self._streams = {each.start: each for each in chunks.streams}
        self._private = private_nodes(graph, self._chunk_keys)
        private = {node.key for nodes in self._private for node in nodes}
        self._shared = {key: node for key, node in graph.items() if key not in private}
        scratch = (each.scratch for each in chunks.streams)
        self._shared |= {node.key: node for node in scratch if node is not None}

    def __len__(self) -> int:
        return len(self._chunk_keys)

    def graph(
        self,
        name: str,
        function: Callable[..., Any],
        common: Any,
        each: Sequence[Any] | None,
    ) -> tuple[dict[Any, GraphNode], list[Any]]:
        """Tasks `function(common[, each[i]], *arrays of chunk i)` and their keys.

        `common` travels as one small task, so that a worker that was lost can be replaced. The task
        of a stream has a list of what the function returns for each of its chunks.
        """
        token = uuid4().hex
        common_key = f"{name}_input-{token}"
        graph: dict[Any, GraphNode] = dict(self._shared)
        graph[common_key] = Task(common_key, identity, common)
        keys = []
        for unit in self._units:
            key, i = (f"{name}-{token}", unit.start), unit.start
            extra = [() if each is None else (each[chunk],) for chunk in unit]
            if i in self._streams:
                stream = self._streams[i]
                scratch = [] if stream.scratch is None else [TaskRef(stream.scratch.key)]
                task = Task(
                    key, _streamed, function, stream.read, extra, TaskRef(common_key), *scratch
                )
                graph[key] = task
            else:
                refs = (TaskRef(array) for array in self._chunk_keys[i])
                task = Task(key, function, TaskRef(common_key), *extra[0], *refs)
                graph[key] = Task.fuse(*self._private[i], task, key=key)
            keys.append(key)
        return graph, keys

    def in_chunks(self, values: Sequence[Any]) -> list[Any]:
        """The values of the tasks, chunk by chunk."""
        return [
            value
            for unit, found in zip(self._units, values, strict=True)
            for value in (found if unit.start in self._streams else (found,))
        ]

    def tasks_in_chunks(self, keys: Sequence[Any]) -> tuple[dict[Any, GraphNode], list[Any]]:
        """The same on the workers: tasks that take the lists apart, and a key for each chunk."""
        apart: dict[Any, GraphNode] = {}
        found = []
        for unit, key in zip(self._units, keys, strict=True):
            if unit.start not in self._streams:
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


def _streamed(
    function: Callable[..., Any],
    read: Read,
    extra: Sequence[tuple[Any, ...]],
    common: Any,
    scratch: Scratch | None = None,
) -> list[Any]:
    """What the function returns for each chunk; of the rows only one chunk is in memory."""
    parts = read() if scratch is None else scratch.rows(read)
    # `map` and not a loop, whose variable would hold a chunk while the next one is read.
    return list(map(partial(_applied, function, common), extra, parts))


def _applied(
    function: Callable[..., Any], common: Any, extra: tuple[Any, ...], arrays: tuple[Any, Any]
) -> Any:
    X, weights = arrays
    return function(common, *extra, X) if weights is None else function(common, *extra, X, weights)


def identity(value: Any) -> Any:
    """A task that gives its own argument: so the value travels once, and can be made again."""
    return value
