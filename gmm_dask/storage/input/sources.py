"""What a worker needs to read the chunks of a plan, and what they are called in messages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from gmm_dask.storage.input.inputs import FileState
from gmm_dask.storage.input.plan import Chunk, Partition, Plan


@dataclass(frozen=True)
class ChunkSource:
    """Everything that a worker needs to read one chunk.

    Parameters
    ----------
    url : str
        Where the file is opened.
    name : str
        What the file is called in messages and labels.
    size, mtime_ns, etag, changed_ns, footer_sha256
        The file as it was planned.
    row_groups : tuple of int
        Indices of the row groups that hold the rows.
    group_stops : tuple of int
        The place in the file after the last row of each of these.
    skip : int
        The number of rows of the first of these that come before `start`.
    start, stop : int
        Places of rows in the file.
    keys : tuple of (str, str or None)
        Folder keys of the file.
    widened : tuple of (name, Arrow type)
        Columns and keys that have another type in labels than in some file.
    absent : tuple of str
        Columns that the file is older than: it has missing values there.
    """

    url: str
    name: str
    size: int
    mtime_ns: int
    etag: str | None
    changed_ns: int
    footer_sha256: str
    row_groups: tuple[int, ...]
    group_stops: tuple[int, ...]
    skip: int
    start: int
    stop: int
    keys: tuple[tuple[str, str | None], ...]
    widened: tuple[tuple[str, pa.DataType], ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def state(self) -> FileState:
        """The state of the file when it was planned."""
        return FileState(self.size, self.mtime_ns, self.etag, self.changed_ns)

    @property
    def n_rows(self) -> int:
        """Rows of the chunk."""
        return self.stop - self.start


def sources(plan: Plan) -> tuple[ChunkSource, ...]:
    """One source for each chunk of the plan, in order."""
    stops = [list(accumulate(partition.row_groups)) for partition in plan.partitions]
    return tuple(
        _source(plan, plan.partitions[chunk.partition], stops[chunk.partition], chunk)
        for chunk in plan.chunks
    )


def shard_sources(plan: Plan) -> tuple[tuple[ChunkSource, ...], ...]:
    """The sources of the chunks of each shard, in order."""
    every = sources(plan)
    return tuple(every[shard.chunks[0].index : shard.chunks[-1].index + 1] for shard in plan.shards)


def array_names(plan: Plan) -> tuple[str, ...]:
    """The name of each array in messages; parts of one row group share the name of the first."""
    names: list[str] = []
    for shard, of_shard in zip(plan.shards, shard_sources(plan), strict=True):
        names.append(name_of(of_shard, plan.row_bytes))
        rest = of_shard[1:] if shard.is_split else ()
        names.extend(name_of((source,), plan.row_bytes) for source in rest)
    return tuple(names)


def name_of(of_shard: Sequence[ChunkSource], row_bytes: int) -> str:
    """What chunks are called in messages: files, row groups, rows, bytes of them in memory."""
    first, last, n_rows = of_shard[0], of_shard[-1], sum(source.n_rows for source in of_shard)
    if not n_rows:
        return f"{first.name}, no rows"
    where, n_bytes = f"{first.name}, {_groups(first)}", f"{n_rows * row_bytes} bytes in memory"
    if first.name != last.name:
        rows = f"{n_rows} rows of {len(of_shard)} files"
        return f"{where}, to {last.name}, {_groups(last)}: {rows} ({n_bytes})"
    if len(of_shard) > 1:
        each = max(source.n_rows for source in of_shard) * row_bytes
        n_bytes = f"in {len(of_shard)} parts, each {each} bytes in memory"
    return f"{where}, rows {first.start} to {last.stop - 1} ({n_bytes})"


def _groups(source: ChunkSource) -> str:
    first, last = source.row_groups[0], source.row_groups[-1]
    return f"row group {first}" if first == last else f"row groups {first} to {last}"


def _source(plan: Plan, partition: Partition, stops: Sequence[int], chunk: Chunk) -> ChunkSource:
    first, last = bisect_right(stops, chunk.start), bisect_right(stops, chunk.stop - 1)
    between = range(first, last + 1) if chunk.n_rows else ()
    groups = tuple(group for group in between if partition.row_groups[group])
    group_starts = (stops[group] - partition.row_groups[group] for group in groups)
    return ChunkSource(
        url=plan.url(partition),
        name=partition.name,
        size=partition.size,
        mtime_ns=partition.mtime_ns,
        etag=partition.etag,
        changed_ns=partition.changed_ns,
        footer_sha256=partition.footer_sha256,
        row_groups=groups,
        group_stops=tuple(stops[group] for group in groups),
        skip=chunk.start - next(group_starts, chunk.start),
        start=chunk.start,
        stop=chunk.stop,
        keys=partition.keys,
        widened=plan.widened,
        absent=partition.absent,
    )
