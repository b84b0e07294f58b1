"""How rows are cut into chunks, and which chunks one task reads: by the data alone."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise


@dataclass(frozen=True)
class Chunk:
    """Rows start..stop of one partition.

    Parameters
    ----------
    index, partition : int
    start, stop : int
        Rows of the file.
    first_row : int
        Position of row `start` in the dataset.
    """

    index: int
    partition: int
    start: int
    stop: int
    first_row: int

    @property
    def n_rows(self) -> int:
        """Rows of the chunk."""
        return self.stop - self.start


@dataclass(frozen=True)
class Shard:
    """Chunks that follow each other and that one task reads.

    Parameters
    ----------
    chunks : tuple of Chunk
    is_split : bool
        Whether they are parts of one row group: each is done with before the next is read. Others
        are no more rows together than a chunk may have, and are in memory as one array.
    """

    chunks: tuple[Chunk, ...]
    is_split: bool

    @property
    def arrays(self) -> tuple[tuple[Chunk, ...], ...]:
        """The chunks that each array in memory is made of."""
        return tuple((chunk,) for chunk in self.chunks) if self.is_split else (self.chunks,)

    @property
    def n_rows(self) -> int:
        """Rows of all its chunks."""
        return sum(chunk.n_rows for chunk in self.chunks)


def row_ranges(row_groups: Sequence[int], max_rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of at most max_rows: whole row groups together, or equal parts of a larger one."""
    start = stop = 0  # the range being gathered
    for rows in row_groups:
        if stop + rows - start > max_rows and stop > start:
            yield start, stop
            start = stop
        stop += rows
        if rows > max_rows:
            parts = -(-rows // max_rows)
            edges = [start + rows * i // parts for i in range(parts + 1)]
            yield from pairwise(edges)
            start = stop
    if stop > start:
        yield start, stop


def shards_of(
    chunks: Sequence[Chunk], row_groups: Sequence[Sequence[int]], max_rows: int
) -> Iterator[Shard]:
    """All chunks in order, in as few tasks as rows and row groups allow.

    Parameters
    ----------
    row_groups : sequence of sequences of int
        Rows of the row groups of each partition.
    max_rows : int
        What the chunks were cut to.
    """
    larger = [_larger(groups, max_rows) for groups in row_groups]

    def split_group(chunk: Chunk) -> tuple[int, int] | None:
        """The row group that the chunk is but a part of, by its place among those."""
        found = larger[chunk.partition]
        at = bisect_right(found, (chunk.start, sys.maxsize)) - 1
        return (chunk.partition, at) if at >= 0 and chunk.start < found[at][1] else None

    for group, members in groupby(chunks, split_group):
        if group is not None:
            yield Shard(tuple(members), True)
        else:
            yield from _packed(members, max_rows)


def _larger(row_groups: Sequence[int], max_rows: int) -> list[tuple[int, int]]:
    """First row and the one after the last of each row group that is more than a chunk."""
    stops = accumulate(row_groups)
    return [
        (stop - rows, stop) for rows, stop in zip(row_groups, stops, strict=True) if rows > max_rows
    ]


def _packed(chunks: Iterator[Chunk], max_rows: int) -> Iterator[Shard]:
    together: list[Chunk] = []
    n_rows = 0
    for chunk in chunks:
        if together and n_rows + chunk.n_rows > max_rows:
            yield Shard(tuple(together), False)
            together, n_rows = [], 0
        together.append(chunk)
        n_rows += chunk.n_rows
    yield Shard(tuple(together), False)
