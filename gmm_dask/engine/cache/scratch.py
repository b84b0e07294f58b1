"""Chunks that stay decoded on a local disk between passes: a cache; the files are the truth."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from uuid import uuid4

from dask._task_spec import GraphNode, Task, TaskRef

from gmm_dask.engine.cache.disk import Place, Room, bytes_for, check_folder, disk, give_back
from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.passes.chunks import Read, RowChunks, Stream
from gmm_dask.engine.passes.fusion import private_nodes

logger = logging.getLogger("gmm_dask")


class Scratch:
    """The decoded chunks of one task, on the disk of the process that has this object.

    A copy in another process gets its own as it reads them.

    Parameters
    ----------
    folder : str
    fit : str
        Those of one fit share a file.
    number : int
        Of the task.
    n_chunks, n_bytes : int
        That the task reads, and that they take on the disk.
    """

    def __init__(self, folder: str, fit: str, number: int, n_chunks: int, n_bytes: int) -> None:
        self._about = (folder, fit, number, n_chunks, n_bytes)
        self._number, self._n_chunks, self._n_bytes = number, n_chunks, n_bytes
        self._disk = disk(folder, fit)

    def __reduce__(self) -> tuple[Any, ...]:
        return Scratch, self._about

    @property
    def is_filled(self) -> bool:
        """Whether the chunks are there."""
        return self._number in self._disk.places

    @property
    def trouble(self) -> str | None:
        """Why they are not."""
        return self._disk.troubles.get(self._number)

    def rows(self, read: Read) -> Iterator[tuple[Any, Any]]:
        """What `read` gives: from the disk if it is there, and else put there.

        Raises
        ------
        As `read` does; whatever the disk does, they are read.
        """
        given = 0
        for place in self._disk.places.get(self._number, ()):
            try:
                yield from map(_pair_of, self._disk.lent(place))
            except OSError as error:
                self._fail(error)
                if not self._disk.is_over:
                    logger.warning(
                        "Scratch is damaged (%s): chunks are decoded again.", self.trouble
                    )
                break
            given += 1
        if given < self._n_chunks:
            self._disk.spare()  # its memory is needed for what is decoded
            yield from islice(map(partial(self._put, self._room(), []), read()), given, None)

    def release(self) -> None:
        """Give back all that the fit has in this process."""
        self._disk.release()

    def _room(self) -> Room | None:
        if self._disk.is_over or self.trouble:
            return None
        try:
            return self._disk.reserve(self._n_bytes)
        except OSError as error:
            self._fail(error)
            return None

    def _put(self, room: Room | None, places: list[Place], part: tuple[Any, Any]) -> Any:
        """The part, which was put on the disk: once all are there, they are read from it."""
        try:
            if room is not None and not (self.trouble or self._disk.is_over):
                places.append(room.write([array for array in part if array is not None]))
        except OSError as error:
            self._fail(error)
        if len(places) == self._n_chunks and not self._disk.is_over:
            self._disk.places[self._number] = tuple(places)
        return part

    def _fail(self, error: OSError) -> None:
        self._disk.places.pop(self._number, None)
        self._disk.troubles[self._number] = error.strerror or str(error)


class InScratch(NamedTuple):
    """Chunks of which some are in scratch.

    Parameters
    ----------
    chunks : RowChunks
    units : list of range
        Those that are.
    trouble : str or None
        Why others are not.
    """

    chunks: RowChunks
    units: list[range]
    trouble: str | None


def put_in_scratch(chunks: RowChunks, backend: Backend, folder: str) -> InScratch:
    """Read the chunks that are not held in memory, and keep them decoded on local disks.

    Raises
    ------
    SettingsError
        The folder cannot be written; what does not fit is no error.
    As the reading of the chunks does.
    """
    backend.everywhere(partial(check_folder, folder))
    streams, word = _streams(chunks), f"scratch-{uuid4().hex}"
    if not streams:
        return InScratch(chunks, [], None)
    units = [range(stream.start, stream.stop) for stream in streams]
    empty = [Scratch(folder, word, unit.start, len(unit), _bytes(chunks, unit)) for unit in units]
    nodes: dict[Any, Any] = {}
    try:
        graph: dict[Any, GraphNode] = {
            (word, stream.start): Task((word, stream.start), _filled, scratch, stream.read)
            for stream, scratch in zip(streams, empty, strict=True)
        }
        ending = partial(give_back, folder, word)
        nodes = backend.hold(graph, [(key,) for key in graph], chunks.names, ending)
        states = {
            (f"state_of_{word}", i): Task((f"state_of_{word}", i), _state, TaskRef((word, i)))
            for _, i in nodes
        }
        found = backend.compute(nodes | states, list(states))
    except BaseException:
        # Whoever keeps the error keeps what it went through.
        for held in (empty[0], *(node.value for node in nodes.values())):
            held.release()
        raise
    filled = [
        replace(stream, scratch=node) for stream, node in zip(streams, nodes.values(), strict=True)
    ]
    return InScratch(
        replace(chunks, streams=tuple(filled)),
        [unit for unit, (is_filled, _) in zip(units, found, strict=True) if is_filled],
        next((trouble for _, trouble in found if trouble), None),
    )


def release(chunks: RowChunks) -> None:
    """Give back what the chunks have in scratch; whoever reads them still, reads the files."""
    for stream in chunks.streams:
        if stream.scratch is not None:
            stream.scratch.value.release()


def _streams(chunks: RowChunks) -> list[Stream]:
    """The units that are not held, each with what reads it."""
    graph, keys = chunks.tasks()
    together = {stream.start: stream for stream in chunks.streams}
    private = private_nodes(graph, keys)
    found = []
    for unit in chunks.units:
        stream = together.get(unit.start)
        if stream is None:
            whole = Task(("read", unit.start), _pair, *map(TaskRef, keys[unit.start]))
            task = Task.fuse(*private[unit.start], whole)
            if task.dependencies:
                continue  # data at hand: there is nothing to read
            stream = Stream(unit.start, unit.stop, _Alone(task))
        found.append(stream)
    return found


@dataclass(frozen=True, eq=False)
class _Alone:
    """Reads one chunk by the tasks that make it."""

    task: GraphNode

    def __call__(self) -> Iterator[tuple[Any, Any]]:
        yield self.task({})


def _pair(X: Any, weights: Any = None) -> tuple[Any, Any]:
    return X, weights


def _pair_of(arrays: list[Any]) -> tuple[Any, Any]:
    return _pair(*arrays)


def _bytes(chunks: RowChunks, unit: range) -> int:
    """What a unit takes on the disk."""
    arrays = [chunks.X] if chunks.weights is None else [chunks.X, chunks.weights]
    return sum(
        bytes_for([((n, *array.shape[1:]), array.dtype.str) for array in arrays])
        for n in (chunks.lengths or ())[unit.start : unit.stop]
    )


def _filled(scratch: Scratch, read: Read) -> Scratch:
    """Read once, to be there for every pass."""
    deque(scratch.rows(read), maxlen=0)
    return scratch


def _state(scratch: Scratch) -> tuple[bool, str | None]:
    return scratch.is_filled, scratch.trouble
