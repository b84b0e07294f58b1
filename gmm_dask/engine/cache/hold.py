"""Chunks that stay decoded between passes, in memory or on a local disk: a cache of the files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, islice, takewhile
from typing import Any, NamedTuple

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef

from gmm_dask.engine.cache.disk import Scratch, bytes_for, check_folder, give_back
from gmm_dask.engine.cache.kept import ancestors
from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.passes.chunk_map import RunTasks, Tell, counting, runs_of
from gmm_dask.engine.passes.units import AtHand, Chunk, Read, RowChunks, Rows, Run, Unit


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
        Bytes that every pass decodes again.
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


def hold(
    chunks: RowChunks,
    backend: Backend,
    budget: int,
    scratch: str | None = None,
    tell: Tell | None = None,
) -> Held:
    """Read as many runs of units as fit the budget, the first ones, and keep them decoded.

    A run of several chunks is passed over where one task has not the memory for all of them.

    Parameters
    ----------
    budget : int
        Bytes of decoded rows, at most, over all workers.
    scratch : str, optional
        Folder on a local disk of whoever works, for the chunks beyond.
    tell : callable, optional
        Called when a run of chunks is held, if the backend waits for them.

    Raises
    ------
    SettingsError
        The folder cannot be written.
    As the reading of the chunks does.
    """
    if not chunks.lengths:
        return Held(chunks, 0, 0, 0)
    runs = runs_of(chunks)
    totals = accumulate(_decoded_bytes(chunks, run) for run in runs)
    fitting = runs[: sum(1 for _ in takewhile(lambda total: total <= budget, totals))]
    if any(run.n_chunks > 1 for run in fitting):
        most = backend.memory_of_task
        fitting = [
            run for run in fitting if run.n_chunks == 1 or _decoded_bytes(chunks, run) <= most
        ]
    if fitting:
        chunks = _in_memory(chunks, fitting, backend, tell)
    n_held, n_bytes = (
        sum(run.n_chunks for run in fitting),
        sum(_decoded_bytes(chunks, run) for run in fitting),
    )
    every = sum(chunks.lengths or ()) * chunks.row_bytes
    held = Held(chunks, n_held, n_bytes, every - n_bytes, bytes_once=n_bytes)
    return held if scratch is None else _beyond_memory(held, backend, scratch, every, tell)


def release(chunks: RowChunks) -> None:
    """Give back the scratch of the chunks; passes that still read them read the files."""
    keys = {unit.needs[-1] for unit in chunks.units if isinstance(unit.read, _ThroughScratch)}
    for value in {id(value): value for value in map(partial(_value, chunks), keys)}.values():
        value.release()


def rows_here(chunks: RowChunks) -> list[Rows | None]:
    """The rows of each piece that this process holds decoded; None where it does not."""
    found: list[Rows | None] = []
    pieces = chunks.pieces
    for unit in chunks.units:
        value = _value(chunks, unit.needs[0]) if isinstance(unit.read, _FromMemory) else None
        here: Iterable[Chunk | None] = [None] * unit.n_chunks
        if isinstance(value, list) and isinstance(unit.read, _FromMemory):
            here = value[unit.read.index]
        for chunk, lengths in zip(here, pieces, strict=False):
            parts = [None] * len(lengths)
            found += parts if chunk is None else np.split(chunk[0], np.cumsum(lengths)[:-1])
    return found


def _value(chunks: RowChunks, key: Any) -> Any:
    node = chunks.shared[key]
    return node.value if isinstance(node, DataNode) else None


def _decoded_bytes(chunks: RowChunks, run: Run) -> int:
    return sum(n or 0 for unit in run.units for n in unit.lengths) * chunks.row_bytes


def _in_memory(
    chunks: RowChunks, runs: list[Run], backend: Backend, tell: Tell | None
) -> RowChunks:
    """A copy of `chunks` whose given runs are held decoded, each run as one value."""

    def read(key: Any, run: Run) -> Task:
        return Task(key, _all_of, run, *map(TaskRef, run.needs))

    tasks = RunTasks("held", runs, read, chunks.names)
    graph = dict(chunks.shared) | tasks.graph()
    on_done = counting(tell, "held", len(tasks.keys))
    nodes = backend.hold(graph, [(key,) for key in tasks.keys], tasks, on_done=on_done)
    known = {
        unit: replace(unit, read=_FromMemory(index), needs=(key,))
        for key, run in zip(tasks.keys, runs, strict=True)
        for index, unit in enumerate(run.units)
    }
    return _with_units(chunks, known, nodes)


def _with_units(
    chunks: RowChunks, known: Mapping[Unit, Unit], nodes: Mapping[Any, Any]
) -> RowChunks:
    """The chunks with other units in the place of some, and what the units still need."""
    units = tuple(known.get(unit, unit) for unit in chunks.units)
    shared = {**chunks.shared, **nodes}
    needed = ancestors(shared, (unit.needs for unit in units))
    return replace(chunks, units=units, shared={key: shared[key] for key in needed})


def _all_of(run: Run, *values: Any) -> list[list[Chunk]]:
    """The chunks of a run, unit by unit."""
    chunks = run.chunks(values)
    return [list(islice(chunks, unit.n_chunks)) for unit in run.units]


@dataclass(frozen=True, eq=False)
class _FromMemory:
    """Gives the chunks of one unit of a run that is held.

    Parameters
    ----------
    index : int
        Position of the unit within the run.
    """

    index: int

    def __call__(self, value: list[list[Chunk]]) -> Iterator[Chunk]:
        return iter(value[self.index])


class _Scratches(NamedTuple):
    """The scratch of each unit of a run."""

    of_units: tuple[Scratch, ...]

    def release(self) -> None:
        """Give back all that the fit has in this process."""
        self.of_units[0].release()


@dataclass(frozen=True, eq=False)
class _ThroughScratch:
    """Reads a unit from scratch where that is filled, and else fills it.

    Parameters
    ----------
    read : Read
        How the unit is read without scratch.
    index : int
        Position of the unit within its run.
    """

    read: Read
    index: int

    def __call__(self, scratches: _Scratches) -> Iterator[Chunk]:
        return scratches.of_units[self.index].rows(self.read)


def _beyond_memory(
    held: Held, backend: Backend, folder: str, every: int, tell: Tell | None
) -> Held:
    """The rest of the chunks in scratch; what does not fit is no error."""
    backend.everywhere(partial(check_folder, folder))
    chunks = held.chunks
    runs = [run for run in runs_of(chunks) if all(map(_can_be_read, run.units))]
    if not runs:
        return replace(held, bytes_once=every)
    chunks, states = _in_scratch(chunks, runs, backend, folder, tell)
    of_units = zip((unit for run in runs for unit in run.units), states, strict=True)
    filled = [unit.lengths for unit, (is_filled, _) in of_units if is_filled]
    n_bytes = sum(n or 0 for lengths in filled for n in lengths) * chunks.row_bytes
    return replace(
        held,
        chunks=chunks,
        n_scratch=sum(map(len, filled)),
        bytes_scratch=n_bytes,
        bytes_read=held.bytes_read - n_bytes,
        bytes_once=every,
        trouble=next((trouble for _, trouble in states if trouble), None),
    )


def _can_be_read(unit: Unit) -> bool:
    """Whether every pass reads the unit anew, from nothing that is in memory."""
    return not unit.needs and not isinstance(unit.read, AtHand)


def _in_scratch(
    chunks: RowChunks, runs: list[Run], backend: Backend, folder: str, tell: Tell | None
) -> tuple[RowChunks, list[tuple[bool, str | None]]]:
    """The chunks with these runs in scratch; and for each unit whether it is there, or why not."""
    empty: dict[int, _Scratches] = {}

    def fill(key: Any, run: Run) -> Task:
        numbers = range(run.first, run.first + len(run.units))
        scratches = zip(numbers, run.units, strict=True)
        found = tuple(
            Scratch(folder, key[0], number, unit.n_chunks, _disk_bytes(chunks, unit))
            for number, unit in scratches
        )
        empty[run.first] = _Scratches(found)
        return Task(key, _filled, found, run)

    tasks = RunTasks("scratch", runs, fill, chunks.names)
    nodes: dict[Any, Any] = {}
    try:
        graph, word = tasks.graph(), tasks.keys[0][0]
        ending = partial(give_back, folder, word)
        on_done = counting(tell, "scratch", len(tasks.keys))
        keys = [(key,) for key in tasks.keys]
        nodes = backend.hold(graph, keys, tasks, ending, on_done)
        asked = {
            (f"state_of_{word}", i): Task((f"state_of_{word}", i), _states, TaskRef((word, i)))
            for _, i in nodes
        }
        states = backend.compute(nodes | asked, list(asked), on_done)
    except BaseException:
        # Whoever keeps the error keeps what it went through.
        for held in (*empty.values(), *(node.value for node in nodes.values())):
            held.release()
        raise
    known = {
        unit: replace(unit, read=_ThroughScratch(unit.read, index), needs=(key,))
        for key, run in zip(tasks.keys, runs, strict=True)
        for index, unit in enumerate(run.units)
    }
    return _with_units(chunks, known, nodes), [each for of_run in states for each in of_run]


def _disk_bytes(chunks: RowChunks, unit: Unit) -> int:
    """The bytes that a unit takes on the disk."""
    kinds: list[tuple[tuple[int, ...], str]] = [((chunks.n_features,), chunks.dtype)]
    kinds += [] if chunks.weight_dtype is None else [((), chunks.weight_dtype)]
    return sum(bytes_for([((n or 0, *tail), dtype) for tail, dtype in kinds]) for n in unit.lengths)


def _filled(scratches: tuple[Scratch, ...], run: Run) -> _Scratches:
    """Read each unit once, so that it is in scratch for every pass."""
    for scratch, unit in zip(scratches, run.units, strict=True):
        deque(scratch.rows(unit.read), maxlen=0)
    return _Scratches(scratches)


def _states(scratches: _Scratches) -> list[tuple[bool, str | None]]:
    return [(scratch.is_filled, scratch.trouble) for scratch in scratches.of_units]
