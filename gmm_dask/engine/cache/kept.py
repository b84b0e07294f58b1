"""Chunks in the memory of a cluster's workers: where they are gone, they are read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from dask._task_spec import DataNode, GraphNode
from dask.utils import key_split

from gmm_dask.engine.cluster.link import Limits, Link
from gmm_dask.engine.cluster.waiting import LostError, asked, loss, waited

FAREWELL = Limits(timeout=5.0, stuck_after=5.0)  # a cluster that does not hear it may be gone
NO_LINK = Link(None)
# Seconds in which some worker begins to read what is to lie elsewhere. Dask keeps a task that may
# go to any worker for its own for ever, if that was lost together with all others.
MOVES_WITHIN = 5.0
TOLERANCE = 1.1  # of the fair share: less is not worth reading a chunk again


class Kept:
    """Chunks that one client after another keeps on its workers.

    Parameters
    ----------
    graph : mapping
        The tasks that read the chunks.
    chunks : sequence of tuple
        Keys of each chunk: its rows, and any weights.
    at_end : callable, optional
        Called on every worker once the chunks are released.
    """

    def __init__(
        self,
        graph: Mapping[Any, GraphNode],
        chunks: Sequence[tuple[Any, ...]],
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self.tasks = {key: graph[key] for key in ancestors(graph, chunks)}
        self._chunks, self._at_end = tuple(chunks), at_end
        self._link = NO_LINK
        self._futures: dict[Any, Any] = {}

    def nodes(self) -> dict[Any, GraphNode]:
        """For each key a node that stands for its value."""
        return {key: DataNode(key, _Stand(self)) for of_chunk in self._chunks for key in of_chunk}

    def make_ready(self, link: Link) -> None:
        """Have every chunk on the client's workers, or under way to one, spread evenly.

        Raises
        ------
        LostError
        """
        if link.client is not self._link.client:
            self._forget([*self._futures])  # those of another client are of no use
            self._link = link
        absent = [i for i, keys in enumerate(self._chunks) if not all(map(self._is_kept, keys))]
        if absent:
            self._read(dict.fromkeys(absent))
        self._even_out()

    def names(self) -> dict[Any, Any]:
        """What each key is called on the cluster at present."""
        return {key: future.key for key, future in self._futures.items()}

    def release(self) -> None:
        """Let the workers forget the chunks; another pass would read them again."""
        link, self._link = self._link, NO_LINK
        self._forget([*self._futures])
        if link.client is None or self._at_end is None or link.client.status != "running":
            return
        farewell = Link(link.client, FAREWELL)
        with suppress(Exception):  # a cluster that is dead has nothing to give back
            asked(farewell, partial(link.client._run, self._at_end, on_error="return"))

    def _is_kept(self, key: Any) -> bool:
        """Whether a worker has the value, or will have it again without being asked."""
        future = self._futures.get(key)
        return future is not None and future.status not in ("cancelled", "error")

    def _forget(self, keys: Iterable[Any]) -> None:
        for key in keys:
            future = self._futures.pop(key, None)
            if future is not None:
                future.release()  # a traceback may keep it alive

    def _read(self, targets: Mapping[int, str | None], idle_after: float | None = None) -> None:
        """Read chunks, each on its worker if that is still there; wait until they are there."""
        by_worker: dict[str | None, list[Any]] = defaultdict(list)
        for chunk, worker in targets.items():
            by_worker[worker].extend(self._chunks[chunk])
        found: dict[Any, Any] = {}
        names: dict[Any, Any] = {}
        for worker, keys in by_worker.items():
            names |= (new := new_names(ancestors(self.tasks, [keys])))
            graph = {name: self.tasks[key].substitute(new, key=name) for key, name in new.items()}
            where = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
            futures = self._link.client.get(graph, [new[key] for key in keys], sync=False, **where)
            found |= dict(zip(keys, futures, strict=True))
        try:
            settle(self._link, found.values(), names, idle_after)
        except BaseException:
            for future in found.values():
                future.release()  # a traceback may keep it alive
            raise
        self._forget(found)  # where they were before
        self._futures |= found
        if any(worker is not None for worker in by_worker):
            self._set_free([*(future.key for future in found.values()), *names.values()])

    def _set_free(self, names: Sequence[Any]) -> None:
        """Let any worker read these chunks again.

        A task that may go elsewhere still waits for its own worker for ever, if that was lost
        together with all others.
        """
        anywhere = dict.fromkeys(names)
        with suppress(KeyError):  # one that is forgotten will not be read again
            scheduler = self._link.client.scheduler
            asked(self._link, lambda: scheduler.set_restrictions(worker=anywhere))

    def _even_out(self) -> None:
        scheduler, keys = self._link.client.scheduler, [f.key for f in self._futures.values()]

        async def look() -> tuple[Any, ...]:
            import asyncio

            return await asyncio.gather(
                scheduler.who_has(keys=keys), scheduler.ncores(), scheduler.nbytes(keys=keys)
            )

        who_has, threads, n_bytes = asked(self._link, look)
        holders, sizes = [], []
        for of_chunk in self._chunks:
            names = [self._futures[key].key for key in of_chunk]
            held = all(who_has.get(name) for name in names)
            holders.append(next(iter(who_has[names[0]])) if held else None)
            sizes.append(float(max(1, sum(max(0, n_bytes.get(name, 0)) for name in names))))
        targets = moves(holders, sizes, threads)
        try:
            self._read(targets, idle_after=MOVES_WITHIN)
        except LostError as lost:
            if lost.suspects:
                raise
            # Workers were lost meanwhile: what they held is read again wherever there are others.


@dataclass(frozen=True, eq=False)
class _Stand:
    """A node that stands in a graph for a kept value, which its key names."""

    kept: Kept

    def release(self) -> None:
        """See Kept."""
        self.kept.release()


def kept_in(graph: Mapping[Any, Any]) -> set[Kept]:
    """The kept chunks that the graph needs."""
    return {node.value.kept for node in graph.values() if _stands_for_value(node)}


def with_names(
    graph: Mapping[Any, Any], kept: Iterable[Kept], names: Mapping[Any, Any]
) -> dict[Any, Any]:
    """The graph under other names, and kept chunks under those by which the cluster knows them."""
    known = {key: name for each in kept for key, name in each.names().items()}
    if not known and not names:
        return dict(graph)
    every = {**names, **known}
    return {
        every.get(key, key): node.substitute(every, key=every.get(key, key))
        for key, node in graph.items()
        if not _stands_for_value(node)
    }


def as_read(graph: Mapping[Any, Any]) -> dict[Any, Any]:
    """The graph in which tasks read the chunks again that were kept."""
    return dict(graph) | {key: node for each in kept_in(graph) for key, node in each.tasks.items()}


def settle(
    link: Link,
    futures: Collection[Any],
    names: Mapping[Any, Any],
    idle_after: float | None = None,
) -> None:
    """Wait until all futures are there.

    Parameters
    ----------
    names : mapping
        What the tasks are called on the cluster, by key.
    idle_after : float, optional
        See `waited`.

    Raises
    ------
    LostError
    As the first task that failed does.
    """
    from distributed.client import as_completed

    async def until_all() -> None:
        async for future in as_completed(futures, loop=link.client.loop, raise_errors=False):
            if future.status != "finished":
                await future

    try:
        waited(link, until_all, tasks=names.values(), idle_after=idle_after)
    except Exception as error:
        lost = loss(error, futures, names)
        if lost is None:
            raise
        raise lost from error


def _stands_for_value(node: Any) -> bool:
    return isinstance(node, DataNode) and isinstance(node.value, _Stand)


def ancestors(graph: Mapping[Any, GraphNode], chunks: Iterable[Iterable[Any]]) -> set[Any]:
    """The keys of the chunks and of all that the chunks need."""
    found: set[Any] = set()
    waiting = [key for of_chunk in chunks for key in of_chunk]
    while waiting:
        key = waiting.pop()
        if key not in found and key in graph:
            found.add(key)
            waiting.extend(graph[key].dependencies)
    return found


def new_names(keys: Iterable[Any]) -> dict[Any, Any]:
    """Names that no client has used, of the same words and places."""
    words: dict[Any, str] = defaultdict(lambda: uuid4().hex)
    return {
        key: (f"{key_split(key)}-{words[key[0]]}", *key[1:])
        if isinstance(key, tuple)
        else f"{key_split(key)}-{words[key]}"
        for key in keys
    }


def moves(
    holders: Sequence[str | None], sizes: Sequence[float], threads: Mapping[str, int]
) -> dict[int, str]:
    """Chunks that should lie elsewhere, and where; none where all are spread evenly enough.

    Parameters
    ----------
    holders : sequence of str or None
        The worker that holds each chunk; None, or one that is gone, where it has to be read anyway.
    sizes : sequence of float
        Bytes of each chunk, positive.
    threads : mapping
        Number of threads of each worker, by its address.
    """
    at = [holder if holder in threads else None for holder in holders]
    before, load = list(at), dict.fromkeys(threads, 0.0)
    for holder, size in zip(at, sizes, strict=True):
        if holder is not None:
            load[holder] += size / threads[holder]
    largest_first = sorted(range(len(at)), key=lambda chunk: (-sizes[chunk], chunk))
    for chunk in largest_first:
        if at[chunk] is None and load:
            at[chunk] = min(load, key=lambda worker: load[worker] + sizes[chunk] / threads[worker])
            load[at[chunk]] += sizes[chunk] / threads[at[chunk]]  # type: ignore[index]
    fair = sum(sizes) / max(1, sum(threads.values()))
    while load and (full := max(load, key=load.__getitem__)) and load[full] > TOLERANCE * fair:
        spare = min(load, key=load.__getitem__)
        better = [
            chunk
            for chunk in largest_first
            if at[chunk] == full and load[spare] + sizes[chunk] / threads[spare] < load[full]
        ]
        if not better:
            break
        load[full] -= sizes[better[0]] / threads[full]
        load[spare] += sizes[better[0]] / threads[spare]
        at[better[0]] = spare
    return {
        chunk: worker
        for chunk, worker in enumerate(at)
        if worker is not None and worker != before[chunk]
    }
