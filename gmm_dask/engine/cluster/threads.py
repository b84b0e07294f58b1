"""Threads of this process as the place where a graph is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any

from dask._task_spec import DataNode, GraphNode
from dask.callbacks import Callback

from gmm_dask.engine.cache.memory import memory_to_hold
from gmm_dask.engine.cluster.recovery import About

Done = Callable[[], None]


@dataclass(frozen=True)
class LocalBackend:
    """Threads of this process; one thread runs the tasks in the caller's own, in order.

    Parameters
    ----------
    n_workers : int
        Number of threads.
    chunk_bytes : int
        Decoded bytes of the largest chunk that a task reads.
    """

    n_workers: int = 1
    chunk_bytes: int = 0

    @property
    def memory_to_hold(self) -> int:
        """See Backend."""
        return memory_to_hold(self.n_workers, self.chunk_bytes)

    @property
    def memory_of_task(self) -> int:
        """See Backend; all chunks that are held are in this process anyway."""
        return sys.maxsize

    def compute(
        self,
        graph: Mapping[Any, Any],
        keys: Sequence[Any],
        on_done: Done | None = None,
        about: About | None = None,
    ) -> list[Any]:
        """See Backend; tasks that need nothing of one another need no scheduler either.

        Dask orders the tasks of a graph in every pass, which takes as long as a pass over 50,000
        rows. Whoever listens to Dask's callbacks, as a progress bar does, hears of every task.
        """
        common = None if Callback.active else _common_values(graph, keys)
        if common is None:
            return _by_dask(graph, keys, self.n_workers, on_done)
        calls = [partial(graph[key], common) for key in keys]
        return _on_threads(calls, self.n_workers, on_done or _told_no_one)

    def everywhere(self, function: Callable[[], Any]) -> list[Any]:
        """See Backend."""
        return [function()]

    def hold(
        self,
        graph: Mapping[Any, Any],
        chunks: Sequence[tuple[Any, ...]],
        about: About | None = None,
        at_end: Done | None = None,
        on_done: Done | None = None,
    ) -> dict[Any, Any]:
        """See Backend; the values are here."""
        keys = [key for of_chunk in chunks for key in of_chunk]
        values = self.compute(graph, keys, on_done)
        return {key: DataNode(key, value) for key, value in zip(keys, values, strict=True)}


def _common_values(graph: Mapping[Any, Any], keys: Sequence[Any]) -> dict[Any, Any] | None:
    """What the tasks need: data at hand, and what all of them ask for; None where there is more."""
    tasks = [graph[key] for key in keys]
    if not all(isinstance(task, GraphNode) for task in tasks):
        return None
    needed = frozenset().union(*(task.dependencies for task in tasks))
    if needed & frozenset(keys):
        return None
    n_asking = {key: 0 for key in needed if not isinstance(graph[key], DataNode)}
    if any(graph[key].dependencies for key in n_asking):
        return None
    for task in tasks if n_asking else ():
        for key in n_asking.keys() & task.dependencies:
            n_asking[key] += 1
    if any(n != len(tasks) for n in n_asking.values()):
        return None
    return {key: graph[key](()) for key in needed}


def _on_threads(calls: Sequence[Callable[[], Any]], n_threads: int, on_done: Done) -> list[Any]:
    """What the calls return, in their order; the first that fails ends the rest."""
    if min(n_threads, len(calls)) < 2:
        return [_told(call(), on_done) for call in calls]
    with ThreadPoolExecutor(min(n_threads, len(calls))) as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            for future in as_completed(futures):
                _told(future.result(), on_done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [future.result() for future in futures]


def _told(value: Any, on_done: Done) -> Any:
    on_done()
    return value


def _told_no_one() -> None:
    pass


def _by_dask(
    graph: Mapping[Any, Any], keys: Sequence[Any], n_threads: int, on_done: Done | None
) -> list[Any]:
    """Values of the keys by Dask's own scheduler, which forgets what nobody needs any more."""
    import dask
    import dask.threaded

    wanted = frozenset(keys)

    def posttask(key: Any, *rest: Any) -> None:
        if on_done is not None and key in wanted:
            on_done()

    with Callback(posttask=posttask):
        if n_threads == 1:
            return list(dask.get(graph, list(keys)))
        return list(dask.threaded.get(graph, list(keys), num_workers=n_threads))
