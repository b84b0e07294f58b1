"""A function of every chunk: one task for each run of read units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any
from uuid import uuid4

from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.cluster.backends import Backend, Done
from gmm_dask.engine.passes.tree_sum import PartialSum, tree_tasks
from gmm_dask.engine.passes.units import RowChunks, Run

GATHER_BYTES = 15 << 20  # above this the partial sums of a pass are joined on the workers
MOST_TASKS = 1024  # of a pass: each costs a scheduler some two milliseconds
MANY_TASKS = 256  # beyond so many, runs grow until a task has enough rows to be worth its cost
WORTH_BYTES = 1 << 20

Tell = Callable[[str, int, int], None]  # first word of the tasks' keys, tasks done, and all


def runs_of(chunks: RowChunks) -> list[Run]:
    """Units as runs of equal number, a power of two: by the rows alone, never by the cluster."""
    n_units, size = len(chunks.units), 1
    while n_units > size * MOST_TASKS:
        size *= 2
    if chunks.lengths is not None:
        unit_bytes = sum(chunks.lengths) * chunks.row_bytes / max(n_units, 1)
        while n_units > size * MANY_TASKS and size * unit_bytes < WORTH_BYTES:
            size *= 2
    runs: list[Run] = []
    for start in range(0, n_units, size):
        first = runs[-1].first + runs[-1].n_chunks if runs else 0
        runs.append(Run(first, chunks.units[start : start + size]))
    return runs


class RunTasks:
    """One task for each run; a task that fails can be cut, so that a chunk is found and named.

    Parameters
    ----------
    name : str
        First word of the keys, as the dashboard shows it.
    runs : iterable of Run
    task : (key, run) -> Task
    names : sequence of str, optional
        What each chunk is called in messages.
    """

    def __init__(
        self,
        name: str,
        runs: Iterable[Run],
        task: Callable[[Any, Run], GraphNode],
        names: Sequence[str] | None,
    ) -> None:
        self._task, self._names = task, names
        word = f"{name}-{uuid4().hex}"
        self._runs = {(word, run.first): run for run in runs}
        self.keys = list(self._runs)

    def graph(self) -> dict[Any, GraphNode]:
        """The tasks by key."""
        return {key: self._task(key, self._runs[key]) for key in self.keys}

    def name(self, key: Any) -> str | None:
        """The chunks of a task, in words; None where they have no names."""
        run = self._runs.get(key)
        if run is None or self._names is None:
            return None
        first = f"chunk {run.first}: {self._names[run.first]}"
        if len(run.units) == 1:
            return first
        last = run.first + run.n_chunks - run.units[-1].n_chunks
        return f"one of {run.n_chunks} chunks, from {first}, to chunk {last}: {self._names[last]}"

    def halves(self, key: Any) -> Mapping[Any, GraphNode]:
        """Tasks for the halves of a task; none where it is of one unit."""
        run = self._runs.get(key)
        if run is None:
            return {}
        word = f"half-{uuid4().hex}"
        halves = {(word, half.first): half for half in run.halves()}
        self._runs |= halves
        return {key: self._task(key, half) for key, half in halves.items()}


class ChunkMap:
    """Applies a function to every chunk: one task for each run of units.

    Parameters
    ----------
    chunks : RowChunks
    backend : Backend
    tell : callable, optional
        Called after each task.
    """

    def __init__(self, chunks: RowChunks, backend: Backend, tell: Tell | None = None) -> None:
        self.chunks, self.backend, self.tell = chunks, backend, tell

    @cached_property
    def runs(self) -> list[Run]:
        """What each task of a pass works through."""
        return runs_of(self.chunks)

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        common: Any,
        each: Sequence[Any] | None = None,
    ) -> list[Any]:
        """`function(common[, each[i]], X[, weights])` of each chunk i, in chunk order."""

        def call(run: Run) -> tuple[Any, ...]:
            if each is None:
                return run.mapped, function, None
            of_run = each[run.first : run.first + run.n_chunks]
            return run.mapped, function, [(extra,) for extra in of_run]

        tasks, graph = self._tasks(name, call, common)
        on_done = counting(self.tell, name, len(tasks.keys))
        found = self.backend.compute(graph, tasks.keys, on_done, tasks)
        return [value for of_run in found for value in of_run]

    def summed(
        self, name: str, function: Callable[..., Any], common: Any, item_bytes: int = 0
    ) -> Any:
        """The sum over all chunks of `function(common, X[, weights])`, by the fixed tree.

        Parameters
        ----------
        item_bytes : int
            Size of what the function returns: much of it is added up on the workers.
        """
        tasks, graph = self._tasks(name, lambda run: (run.summed, function), common)
        keys = tasks.keys
        if len(keys) * item_bytes > GATHER_BYTES:
            joining, keys = tree_tasks(keys)
            graph |= joining
        on_done = counting(self.tell, name, len(keys))
        return PartialSum.joined(self.backend.compute(graph, keys, on_done, tasks)).total

    def _tasks(
        self, name: str, call: Callable[[Run], tuple[Any, ...]], common: Any
    ) -> tuple[RunTasks, dict[Any, GraphNode]]:
        """A task for each run: what `call` says, with the common value and what the units need.

        The common value travels as one small task, so that a worker that was lost can be replaced.
        """
        key_of_common = f"{name}_input-{uuid4().hex}"

        def task(key: Any, run: Run) -> GraphNode:
            function, *arguments = call(run)
            return Task(key, function, *arguments, *map(TaskRef, (key_of_common, *run.needs)))

        tasks = RunTasks(name, self.runs, task, self.chunks.names)
        common_task = {key_of_common: Task(key_of_common, identity, common)}
        return tasks, dict(self.chunks.shared) | common_task | tasks.graph()


def counting(tell: Tell | None, name: str, n_tasks: int) -> Done | None:
    """What a backend calls at the end of each task, so that `tell` hears how many are done."""
    if tell is None:
        return None
    done = count(1)
    return lambda: tell(name, min(next(done), n_tasks), n_tasks)


def identity(value: Any) -> Any:
    """A task that gives its own argument: so the value travels once, and can be made again."""
    return value
