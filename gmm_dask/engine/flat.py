"""Tasks that need nothing of one another: threads of this process run them without a scheduler.

Dask orders the tasks of a graph in every pass, which takes as long as a pass over 50,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from dask._task_spec import DataNode, GraphNode
from dask.callbacks import Callback


def common_values(graph: Mapping[Any, Any], keys: Sequence[Any]) -> dict[Any, Any] | None:
    """What the tasks need: data at hand, and what all of them ask for; None where there is more.

    None as well while someone listens to Dask's callbacks, a progress bar for instance.
    """
    tasks = [graph[key] for key in keys]
    if Callback.active or not all(isinstance(task, GraphNode) for task in tasks):
        return None
    needed = frozenset().union(*(task.dependencies for task in tasks))
    of_all = frozenset.intersection(*(task.dependencies for task in tasks)) if tasks else needed
    if needed & frozenset(keys):
        return None
    for key in needed:
        node = graph[key]
        if not isinstance(node, DataNode) and (key not in of_all or node.dependencies):
            return None
    return {key: graph[key](()) for key in needed}


def run(
    graph: Mapping[Any, Any],
    keys: Sequence[Any],
    common: Mapping[Any, Any],
    n_workers: int,
    on_done: Callable[[], None],
) -> list[Any]:
    """Values of the keys, in their order; the first that fails ends the rest.

    Parameters
    ----------
    common : mapping
        As from `common_values`.
    on_done : callable
        Called in this thread after each task.
    """
    calls = [_Call(graph[key], common) for key in keys]
    if n_workers == 1 or len(calls) < 2:
        return list(_in_turn(calls, on_done))
    pool = ThreadPoolExecutor(min(n_workers, len(calls)))
    try:
        futures = [pool.submit(call) for call in calls]
        for future in as_completed(futures):
            future.result()
            on_done()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


class _Call:
    """A task with what it needs."""

    def __init__(self, task: GraphNode, common: Mapping[Any, Any]) -> None:
        self._task = task
        self._values = {key: common[key] for key in task.dependencies}

    def __call__(self) -> Any:
        return self._task(self._values)


def _in_turn(calls: Sequence[_Call], on_done: Callable[[], None]) -> Iterator[Any]:
    for call in calls:
        yield call()
        on_done()
