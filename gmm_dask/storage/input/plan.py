"""The plan: every file, row group and row of a dataset, cut into chunks."""

from __future__ import annotations

import hashlib
import json
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

from gmm_dask.storage.input.columns.selection import column_of
from gmm_dask.storage.input.listing import joined
from gmm_dask.storage.input.parquet.footers import (
    Column,
)


@dataclass(frozen=True)
class Chunk:
    """Rows start..stop of one partition.

    Parameters
    ----------
    index, partition : int
    start, stop : int
        Places of rows in the file.
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


@dataclass(frozen=True)
class Partition:
    """One file.

    Parameters
    ----------
    index : int
    name : str
        Posix path relative to the root.
    size, mtime_ns, etag, changed_ns
        What tells that the file changed; see FileState.
    footer_sha256 : str
        What the file is, on every machine.
    row_groups : tuple of int
        The number of rows of each row group.
    first_row : int
        Position of its first row in the dataset.
    keys : tuple of (str, str or None)
        Folder keys in path order; None stands for a missing value.
    absent : tuple of str
        Columns of its table that the file is older than: it has missing values there.
    """

    index: int
    name: str
    size: int
    mtime_ns: int
    etag: str | None
    changed_ns: int
    footer_sha256: str
    row_groups: tuple[int, ...]
    first_row: int
    keys: tuple[tuple[str, str | None], ...]
    absent: tuple[str, ...] = ()

    @cached_property
    def n_rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Plan:
    """A dataset as it was when planned; the chunks hold every row once, in order.

    A dataset of no rows has one chunk, of none: its label part says which columns labels have.

    Parameters
    ----------
    root : str
        Absolute path or URL.
    features : tuple of str
        Columns, and elements of columns of lists, such as "embedding[0]".
    dtype : {"float32", "float64"}
        The narrower one that holds every value of the features.
    feature_types : tuple of str
        Arrow type of each, the widest over all files.
    weight_column : str or None
    id_columns : tuple of str
    columns : tuple of (name, Arrow type)
        All columns of the files, in the first file's order.
    key_columns : tuple of str
        Keys of the folders `key=value`.
    partitions : tuple of Partition
    chunks : tuple of Chunk
    chunk_rows : int
        The number of rows of a chunk, at most.
    cast : tuple of (name, Arrow type)
        Columns that are taken for numbers because the settings ask for it.
    n_ignored, n_hidden : int
        Files left out as the settings ask, and names left out that start with "_" or ".".
    widened : tuple of (name, Arrow type)
        Columns and keys that have another type in labels than in some file.
    tables : tuple of (str, int)
        The Delta tables that the files are of: name relative to the root, and version.
    caution : str or None
        What must be known of files that were named one by one, and of columns left out.
    """

    root: str
    features: tuple[str, ...]
    dtype: str
    feature_types: tuple[str, ...]
    weight_column: str | None
    id_columns: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    key_columns: tuple[str, ...]
    partitions: tuple[Partition, ...]
    chunks: tuple[Chunk, ...]
    chunk_rows: int
    cast: tuple[tuple[str, str], ...] = ()
    n_ignored: int = 0
    n_hidden: int = 0
    widened: tuple[Column, ...] = ()
    tables: tuple[tuple[str, int], ...] = ()
    caution: str | None = None

    @cached_property
    def n_rows(self) -> int:
        """Rows of the dataset."""
        return sum(partition.n_rows for partition in self.partitions)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """Columns of the files that the features are read from."""
        names = dict(self.columns)
        return tuple(dict.fromkeys(column_of(name, names) for name in self.features))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's features in memory."""
        return len(self.features) * (4 if self.dtype == "float32" else 8)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All chunks in order, as tasks read them."""
        row_groups = [partition.row_groups for partition in self.partitions]
        return tuple(shards_of(self.chunks, row_groups, self.chunk_rows))

    @cached_property
    def n_arrays(self) -> int:
        """Arrays in memory that a pass works on."""
        return sum(len(shard.arrays) for shard in self.shards)

    @cached_property
    def array_bytes(self) -> int:
        """Bytes of the largest array of features in memory."""
        rows = (sum(c.n_rows for c in array) for shard in self.shards for array in shard.arrays)
        return max(rows, default=0) * self.row_bytes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and footers, the same wherever and whenever they were copied.

        Of Delta tables also their versions, and the partition values in their logs. Other data have
        another fingerprint, but for values between the least and the greatest of a column;
        storage.contents tells those apart.
        """
        digest = hashlib.sha256()
        lines: list[Any] = [
            [each.name, each.size, each.footer_sha256, *([each.keys] if self.tables else [])]
            for each in self.partitions
        ]
        for line in (*lines, *self.tables):
            digest.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
        return digest.hexdigest()

    def url(self, partition: Partition) -> str:
        """Where a partition is opened."""
        return joined(self.root, partition.name)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        document = asdict(self) | {"n_rows": self.n_rows, "fingerprint": self.fingerprint}
        document["columns"], document["cast"] = dict(self.columns), dict(self.cast)
        document["tables"] = dict(self.tables)
        document["widened"] = {name: str(type_) for name, type_ in self.widened}
        for partition, entry in zip(self.partitions, document["partitions"], strict=True):
            entry["n_rows"] = partition.n_rows
            entry["keys"] = dict(partition.keys)
        return json.loads(json.dumps(document))  # type: ignore[no-any-return]


def shards_of(
    chunks: Sequence[Chunk], row_groups: Sequence[Sequence[int]], max_rows: int
) -> Iterator[Shard]:
    """All chunks in order, in as few tasks as rows and row groups allow.

    Parameters
    ----------
    row_groups : sequence of sequences of int
        The number of rows of each row group, for each partition.
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
