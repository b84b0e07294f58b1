"""Tasks that need nothing of one another: threads of this process run them without a scheduler.

Dask orders the tasks of a graph in every pass, which takes as long as a pass over 50,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
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
        Called in this thread after each task; of one that another did, once this is done with its
        own.
    """
    calls = [_Call(graph[key], common) for key in keys]
    n_others = min(n_workers, len(calls)) - 1
    if n_others < 1:
        return list(_in_turn(calls, on_done))
    queue = _Queue(calls)
    with ThreadPoolExecutor(n_others) as pool:
        others = [pool.submit(queue.work) for _ in range(n_others)]
        try:
            for _ in queue.done_here():
                queue.tell(on_done)
        finally:
            queue.stop()
        for other in others:
            other.result()
        queue.tell(on_done)
    return queue.found


class _Queue:
    """Calls that threads take one after the other, this one too: starting a thread takes time."""

    def __init__(self, calls: Sequence[_Call]) -> None:
        self.found: list[Any] = [None] * len(calls)
        self._calls = calls
        self._waiting: SimpleQueue[int] = SimpleQueue()
        self._finished: SimpleQueue[int] = SimpleQueue()
        for i in range(len(calls)):
            self._waiting.put(i)

    def done_here(self) -> Iterator[int]:
        """Take calls until there are no more; a failure stops the other threads, too."""
        while (i := _next(self._waiting)) is not None:
            try:
                self.found[i] = self._calls[i]()
            except BaseException:
                self.stop()
                raise
            self._finished.put(i)
            yield i

    def work(self) -> None:
        """The same in another thread."""
        for _ in self.done_here():
            pass

    def stop(self) -> None:
        """No call is begun any more."""
        while _next(self._waiting) is not None:
            pass

    def tell(self, on_done: Callable[[], None]) -> None:
        """Call it for each that was finished since the last time."""
        while _next(self._finished) is not None:
            on_done()


def _next(queue: SimpleQueue[int]) -> int | None:
    try:
        return queue.get_nowait()
    except Empty:
        return None


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
