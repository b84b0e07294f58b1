"""Where a graph is computed, and a Dask cluster as such a place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

import dask
from dask.optimization import cull

from gmm_dask.engine.cache.kept import Kept, as_read, kept_in, new_names, settle, with_names
from gmm_dask.engine.cluster.link import Link
from gmm_dask.engine.cluster.recovery import NOTHING, About, Alone, Session, repeated
from gmm_dask.engine.cluster.waiting import LostError, asked, in_one_line, last_tasks, loss, waited

T = TypeVar("T")
Done = Callable[[], None]

# Dask advises to send less than 10 MB with a graph; 160,000 chunks take 30 MB to describe.
NO_ADVICE = {"distributed.admin.large-graph-warning-threshold": "1GB"}
SHARE_OF_WORKERS = 0.25  # of their limits, where Dask begins to spill at six tenths


class Backend(Protocol):
    """Computes graphs of tasks."""

    @property
    def n_workers(self) -> int:
        """Tasks that can run at once."""

    @property
    def memory_to_hold(self) -> int:
        """Bytes that decoded chunks may take between passes."""

    @property
    def memory_of_task(self) -> int:
        """Bytes of decoded chunks that one task may bring at once, to be held."""

    def compute(
        self,
        graph: Mapping[Any, Any],
        keys: Sequence[Any],
        on_done: Done | None = None,
        about: About | None = None,
    ) -> list[Any]:
        """Values of the keys, in their order; `on_done` is called as each key is ready."""

    def everywhere(self, function: Callable[[], Any]) -> list[Any]:
        """What the function returns in each process that works."""

    def hold(
        self,
        graph: Mapping[Any, Any],
        chunks: Sequence[tuple[Any, ...]],
        about: About | None = None,
        at_end: Done | None = None,
        on_done: Done | None = None,
    ) -> dict[Any, Any]:
        """For each key of the chunks a node for its value in memory, where the work is done.

        Where that is elsewhere, each process is told `at_end` once the value of a node is released,
        and nobody waits for the values; where it is here, `on_done` is called as each is ready.
        """


@dataclass(frozen=True, eq=False)
class ClusterBackend:
    """A Dask cluster; what fails because workers or the scheduler were lost is repeated.

    Parameters
    ----------
    session : Session
        Gives the connection.
    """

    session: Session

    @property
    def n_workers(self) -> int:
        """Threads of all workers."""
        return sum(self._ask(lambda scheduler: scheduler.ncores()).values())

    @property
    def memory_to_hold(self) -> int:
        """See Backend; nothing where a worker has no limit."""
        return int(SHARE_OF_WORKERS * sum(each["memory_limit"] or 0 for each in self._workers()))

    @property
    def memory_of_task(self) -> int:
        """See Backend; beside each thread of the smallest worker all others may do the same."""
        shares = ((each["memory_limit"] or 0) / each["nthreads"] for each in self._workers())
        return int(SHARE_OF_WORKERS * min(shares, default=0))

    def compute(
        self,
        graph: Mapping[Any, Any],
        keys: Sequence[Any],
        on_done: Done | None = None,
        about: About | None = None,
    ) -> list[Any]:
        """See Backend.

        Raises
        ------
        ClusterError
            The cluster was away for too long or lost too often, or a task kills its workers.
        """
        told, attempts = _Told(on_done), count()
        return self._repeated(
            lambda link: _computed(link, graph, keys, told, anew=next(attempts) > 0),
            partial(_alone, graph),
            about,
        )

    def everywhere(self, function: Callable[[], Any]) -> list[Any]:
        """See Backend; workers that are lost meanwhile do not count, the first is waited for."""

        def run(link: Link) -> list[Any]:
            client = link.client
            asked(link, partial(client._wait_for_workers, 1))
            replies = asked(link, partial(client._run, function, on_error="return")).values()
            found = [reply for reply in replies if not isinstance(reply, Exception)]
            failed = [reply for reply in replies if isinstance(reply, Exception)]
            for error in failed:
                if not isinstance(error, OSError):
                    raise error
            if not found:
                raise LostError(f"no worker answered ({', '.join(map(in_one_line, failed))})")
            return found

        return self._repeated(run)

    def hold(
        self,
        graph: Mapping[Any, Any],
        chunks: Sequence[tuple[Any, ...]],
        about: About | None = None,
        at_end: Done | None = None,
        on_done: Done | None = None,
    ) -> dict[Any, Any]:
        """See Backend; what a worker takes with it is read again, and spread evenly.

        Raises
        ------
        ClusterError
            As `compute` does.
        """
        kept = Kept(graph, chunks, at_end)
        self._repeated(kept.make_ready, partial(_alone, graph), about)
        return kept.nodes()

    def _workers(self) -> list[dict[str, Any]]:
        """What the scheduler knows of each worker."""
        return list(self._ask(lambda scheduler: scheduler.identity())["workers"].values())

    def _repeated(
        self,
        work: Callable[[Link], T],
        alone: Alone | None = None,
        about: About | None = None,
    ) -> T:
        return repeated(self.session, work, alone=alone, about=about or NOTHING)

    def _ask(self, question: Callable[[Any], Awaitable[T]]) -> T:
        """The answer of the scheduler to a question."""
        return self._repeated(lambda link: asked(link, lambda: question(link.client.scheduler)))


def _alone(graph: Mapping[Any, Any], link: Link, key: Any, more: Mapping[Any, Any]) -> None:
    """Run one task, and what it needs; raises LostError and what tasks raise.

    Parameters
    ----------
    more : mapping
        Tasks beside those of the graph, of which it may be one.
    """
    tasks = as_read({**graph, **more})
    if key not in tasks:
        return
    needed = cull(tasks, [key])[0]
    names = new_names(needed)
    futures = link.client.get(with_names(needed, (), names), [names[key]], sync=False)
    try:
        settle(link, futures, names)
    finally:
        for future in futures:
            future.release()  # a traceback may keep it alive


def _computed(
    link: Link,
    graph: Mapping[Any, Any],
    keys: Sequence[Any],
    told: _Told,
    *,
    anew: bool,
) -> list[Any]:
    """Values of the keys, once; raises LostError and what tasks raise.

    Parameters
    ----------
    anew : bool
        Whether it was tried before: the tasks get other names, because for some time a client
        remembers how those of an earlier attempt failed.
    """
    client, kept = link.client, kept_in(graph)
    for each in kept:
        each.make_ready(link)
    names = new_names(graph) if anew else {}
    tasks = with_names(graph, kept, names)
    with dask.config.set(NO_ADVICE):
        futures = client.get(tasks, [names.get(key, key) for key in keys], sync=False)
    try:
        gathered: list[Any] = waited(
            link, lambda: client._gather(futures), tell=partial(told.count, futures), tasks=tasks
        )
    except Exception as error:
        lost = loss(error, futures, names)
        if lost is None:
            raise
        if lost.no_worker and not lost.suspects:
            suspects = last_tasks(link, graph.keys(), names)
            lost = LostError(str(lost), suspects, no_worker=True)
        raise lost from error
    finally:
        for future in futures:
            future.release()  # a traceback may keep it alive
    told.reach(len(keys))
    return gathered


class _Told:
    """Calls the listener once for each key that is ready, however often the key is computed."""

    def __init__(self, on_done: Done | None) -> None:
        self._on_done, self._n = on_done, 0

    def count(self, futures: Sequence[Any]) -> None:
        """Look how many are ready."""
        if self._on_done is not None:
            self.reach(sum(future.status == "finished" for future in futures))

    def reach(self, n: int) -> None:
        """Call the listener until it was told of `n` keys that are ready."""
        while self._on_done is not None and self._n < n:
            self._n += 1
            self._on_done()
