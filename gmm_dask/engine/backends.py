"""Where a graph is computed: threads of this process, or a Dask cluster. Same graph, same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from gmm_dask.errors import ClusterError

Done = Callable[[], None]

# Of free memory here; of the workers' limits there, where Dask begins to spill at six tenths.
SHARE_HERE, SHARE_OF_WORKERS = 0.5, 0.25


class Backend(Protocol):
    """Computes graphs of tasks."""

    @property
    def n_workers(self) -> int:
        """Tasks that can run at once."""

    @property
    def memory_to_hold(self) -> int:
        """Bytes that decoded chunks may take between passes."""

    def compute(
        self, graph: Mapping[Any, Any], keys: Sequence[Any], on_done: Done | None = None
    ) -> list[Any]:
        """Values of the keys, in their order; `on_done` is called as each key is ready."""

    def everywhere(self, function: Callable[[], Any]) -> list[Any]:
        """What the function returns in each process that works."""

    def hold(self, graph: Mapping[Any, Any], keys: Sequence[Any]) -> dict[Any, Any]:
        """For each key a node that holds its value in memory, where the work is done."""


@dataclass(frozen=True)
class LocalBackend:
    """Threads of this process; one thread runs the tasks in the caller's own, in order."""

    n_workers: int = 1

    @property
    def memory_to_hold(self) -> int:
        """See Backend."""
        import psutil
        from distributed.system import memory_limit  # knows the limits of containers

        process = psutil.Process().memory_info().rss
        free = min(psutil.virtual_memory().available, memory_limit() - process)
        return max(0, int(SHARE_HERE * free))

    def compute(
        self, graph: Mapping[Any, Any], keys: Sequence[Any], on_done: Done | None = None
    ) -> list[Any]:
        """See Backend."""
        import dask
        import dask.threaded
        from dask.callbacks import Callback

        wanted = frozenset(keys)

        def posttask(key: Any, *rest: Any) -> None:
            if on_done is not None and key in wanted:
                on_done()

        with Callback(posttask=posttask):
            if self.n_workers == 1:
                return list(dask.get(graph, list(keys)))
            return list(dask.threaded.get(graph, list(keys), num_workers=self.n_workers))

    def everywhere(self, function: Callable[[], Any]) -> list[Any]:
        """See Backend."""
        return [function()]

    def hold(self, graph: Mapping[Any, Any], keys: Sequence[Any]) -> dict[Any, Any]:
        """See Backend."""
        from dask._task_spec import DataNode

        values = self.compute(graph, keys)
        return {key: DataNode(key, value) for key, value in zip(keys, values, strict=True)}


@dataclass(frozen=True, eq=False)
class ClusterBackend:
    """A Dask cluster behind a client."""

    client: Any

    @property
    def n_workers(self) -> int:
        """Threads of all workers."""
        return sum(self.client.nthreads().values())

    @property
    def memory_to_hold(self) -> int:
        """See Backend; nothing where a worker has no limit."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return int(SHARE_OF_WORKERS * sum(worker["memory_limit"] or 0 for worker in workers))

    def compute(
        self, graph: Mapping[Any, Any], keys: Sequence[Any], on_done: Done | None = None
    ) -> list[Any]:
        """See Backend; raises ClusterError when workers are lost more often than Dask retries."""
        from distributed.client import as_completed

        futures = self.client.get(dict(graph), list(keys), sync=False)
        try:
            with _named_failures():
                if on_done is not None:
                    for _ in as_completed(futures, loop=self.client.loop):
                        on_done()
                return list(self.client.gather(futures))
        finally:
            del futures

    def everywhere(self, function: Callable[[], Any]) -> list[Any]:
        """See Backend."""
        return list(self.client.run(function).values())

    def hold(self, graph: Mapping[Any, Any], keys: Sequence[Any]) -> dict[Any, Any]:
        """See Backend; a worker that is lost takes its share with it, and it is read again."""
        from distributed.client import as_completed

        futures = self.client.get(dict(graph), list(keys), sync=False)
        with _named_failures():
            for future in as_completed(futures, loop=self.client.loop):
                if future.status != "finished":
                    future.result()
        return dict(zip(keys, futures, strict=True))


@contextmanager
def _named_failures() -> Iterator[None]:
    """Dask's errors of a lost cluster as ours."""
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"Workers died repeatedly on one task ({error}). The usual cause is memory: "
            "lower memory.chunk_bytes or give the workers more."
        ) from error
    except (FutureCancelledError, NoValidWorkerError) as error:
        raise ClusterError(
            f"The cluster was lost during a pass ({error}). Start it again and run once more."
        ) from error
