"""Planned files while they are open: each is known to be the planned one, and is read in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import DataError, InputChangedError
from gmm_dask.storage.arrow import to_numpy
from gmm_dask.storage.input.inputs import Input, open_input
from gmm_dask.storage.input.parquet.footers import INT96, footer_bytes, parse_footer
from gmm_dask.storage.input.parquet.row_groups import n_leaves
from gmm_dask.storage.input.sources import ChunkSource

BLOCK_ROWS = 8192  # rows that are turned from columns into rows while they are in the cache


BATCH_BYTES = 2 << 20  # decoded values held beside the result


MAX_BATCH_ROWS = 1 << 16


LEAST_VECTORS = 512  # rows of a batch of lists, each of which may be long


MAX_OPEN_COLUMNS = 128  # that wait for the next part of their row group


PLAN_AGAIN = "Run again: a new plan takes the file as it is now."


class NoFile:
    """The source of a chunk without row groups, for which no file need be there."""

    stream: Any = None
    metadata: Any = None
    schema: Any = None
    types: ClassVar[dict[str, pa.DataType]] = {}

    def check_unchanged(self) -> None:
        """Nothing can have changed."""

    def check_moments(self, groups: Sequence[int], columns: Sequence[str]) -> None:
        """There is no moment to check."""

    def rows(self, *_: Any) -> Iterator[pa.RecordBatch]:
        """No batches."""
        return iter(())

    iterate = rows


class OpenFile:
    """A file while it is open, known to be the planned one.

    Parameters
    ----------
    source : ChunkSource
        One of its chunks.
    file : Input
    """

    def __init__(self, source: ChunkSource, file: Input) -> None:
        self._source, self._file = source, file
        self.check_unchanged()
        content = footer_bytes(source.name, file.stream, source.size)
        if hashlib.sha256(content).hexdigest() != source.footer_sha256:
            raise file_changed(source, "its footer is another")
        footer = parse_footer(source.name, content)
        self.stream = file.stream
        self.metadata, self.schema = footer.metadata, footer.schema_arrow
        self.types = {field.name: field.type for field in self.schema}
        self.types |= dict.fromkeys(source.absent, pa.null())
        self._cursors: dict[tuple[Any, ...], Cursor] = {}
        self._parquet = pq.ParquetFile(
            file.stream,
            metadata=footer.metadata,
            pre_buffer=False,
            buffer_size=file.buffer_size,
            page_checksum_verification=True,
            **INT96,
        )

    def check_moments(self, groups: Sequence[int], columns: Sequence[str]) -> None:
        """Raise DataError where time stamps of 96 bits are no whole microseconds."""
        found = int96_columns(self.metadata, self.schema).intersection(columns)
        if not found:
            return
        exact = pq.ParquetFile(self.stream, metadata=self.metadata, pre_buffer=False)
        for name in sorted(found):
            if is_cut(self._parquet, exact, groups, name):
                raise DataError(
                    f"{self._source.name}, column {name!r}: holds moments of less than a "
                    "microsecond in time stamps of 96 bits. Write them as timestamp[ns], or leave "
                    "the column out of the labels."
                )

    def is_of(self, source: ChunkSource) -> bool:
        """Whether the chunk is one of this file."""
        mine = self._source
        return (mine.url, mine.footer_sha256) == (source.url, source.footer_sha256)

    def check_unchanged(self) -> None:
        """Raise InputChangedError unless the open file is still as it was planned."""
        source = self._source
        try:
            state = self._file.state()
        except FileNotFoundError as error:
            raise file_changed(source, "it is gone") from error
        if state != source.state:
            raise file_changed(source, source.state.difference_of(state))

    def rows(
        self, source: ChunkSource, columns: Sequence[str], n_values: int
    ) -> Iterator[pa.RecordBatch]:
        """The chunk's rows batch by batch, of so many values each.

        The next part of a row group goes on where the one before it ended: nothing of the group is
        decoded twice, where its columns are no more than MAX_OPEN_COLUMNS.
        """
        key = (source.row_groups, tuple(columns))
        cursor = self._cursors.pop(key, None)
        if cursor is None or cursor.row > source.start:
            size = BATCH_BYTES // (8 * n_values)
            least = BLOCK_ROWS if n_values == len(columns) else LEAST_VECTORS
            size = min(max(size // least * least, least), MAX_BATCH_ROWS)
            batches = self.iterate(size, source.row_groups, columns)
            cursor = Cursor(batches, source.start - source.skip)
        if source.stop < source.group_stops[-1]:
            self._keep(key, cursor)
        yield from cursor.rows(source.start, source.stop)

    def iterate(
        self, size: int, groups: Sequence[int], columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """All rows of the row groups from their first on; missing values in absent columns."""
        stored = [name for name in columns if name not in self._source.absent]
        if len(stored) == len(columns):
            return self._stored(size, groups, stored)
        batches = self._stored(size, groups, stored) if stored else self._no_columns(size, groups)
        return (with_absent(batch, columns) for batch in batches)

    def _stored(
        self, size: int, groups: Sequence[int], columns: list[str]
    ) -> Iterator[pa.RecordBatch]:
        return self._parquet.iter_batches(  # type: ignore[no-any-return]
            size, row_groups=list(groups), columns=columns, use_threads=False
        )

    def _no_columns(self, size: int, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        for group in groups:
            n_rows = self.metadata.row_group(group).num_rows
            for first in range(0, n_rows, size):
                yield pa.record_batch([pa.nulls(min(size, n_rows - first))], [""])

    def _keep(self, key: tuple[Any, ...], cursor: Cursor) -> None:
        """Keep the cursor for the next part of the row group; drop the oldest beyond a limit."""
        self._cursors[key] = cursor
        while sum(len(columns) for _, columns in self._cursors) > MAX_OPEN_COLUMNS:
            del self._cursors[next(iter(self._cursors))]  # the one that was used least lately


def planned_input(source: ChunkSource) -> Input:
    """The open file of a chunk; an error of ours where it is gone or must not be read."""
    try:
        return open_input(source.url)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise file_changed(source, "it is gone") from error
    except IsADirectoryError as error:
        raise file_changed(source, "a folder took its place") from error
    except PermissionError as error:
        raise DataError(
            f"{source.name}: cannot be read: {error.strerror}. Grant read access to it."
        ) from error


def file_changed(source: ChunkSource, what: str) -> InputChangedError:
    """The error of a file that is not the planned one."""
    return InputChangedError(f"{source.name}: changed after it was planned: {what}. {PLAN_AGAIN}")


class Cursor:
    """A place in the rows of a file that batches are decoded from; it only goes on."""

    def __init__(self, batches: Iterator[pa.RecordBatch], row: int) -> None:
        self.row = row  # of the file, that comes next
        self._batches = batches
        self._rest: pa.RecordBatch | None = None  # decoded, but of the next part

    def rows(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Rows start..stop of the file; fewer where there are no more."""
        while self.row < stop:
            batch = next(self._batches, None) if self._rest is None else self._rest
            if batch is None:
                return
            skip = min(max(start - self.row, 0), batch.num_rows)
            wanted = batch.slice(skip, stop - self.row - skip)
            taken = skip + wanted.num_rows
            self._rest = batch.slice(taken) if taken < batch.num_rows else None
            self.row += taken
            del batch  # only the caller holds it while it is used
            if wanted.num_rows:
                yield wanted


def with_absent(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """The batch with the columns in the order given; columns that it lacks hold missing values."""
    names, absent = batch.schema.names, pa.nulls(batch.num_rows)
    arrays = [batch.column(name) if name in names else absent for name in columns]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


BATCH_ROWS = 1 << 16


def int96_columns(metadata: pq.FileMetaData, schema: pa.Schema) -> frozenset[str]:
    """Columns with such time stamps, or with some inside."""
    owners = (field.name for field in schema for _ in range(n_leaves(field.type)))
    leaves = (metadata.schema.column(i) for i in range(metadata.num_columns))
    return frozenset(
        name for name, leaf in zip(owners, leaves, strict=True) if leaf.physical_type == "INT96"
    )


def is_cut(
    microseconds: pq.ParquetFile, nanoseconds: pq.ParquetFile, groups: Sequence[int], column: str
) -> bool:
    """Whether a moment of a column is no whole microsecond.

    Parameters
    ----------
    microseconds, nanoseconds : ParquetFile
        The same file, opened with either unit. Nanoseconds of years beyond their range wrap round,
        which does not matter to the comparison.
    """
    how: dict[str, Any] = {
        "row_groups": list(groups),
        "columns": [column],
        "use_threads": False,
    }
    for coarse, fine in zip(
        microseconds.iter_batches(BATCH_ROWS, **how),
        nanoseconds.iter_batches(BATCH_ROWS, **how),
        strict=True,
    ):
        pairs = zip(_moments(coarse.column(0)), _moments(fine.column(0)), strict=True)
        if any(not np.array_equal(us * 1000, ns) for us, ns in pairs):
            return True
    return False


def _moments(array: pa.Array) -> Iterator[np.ndarray[Any, Any]]:
    """The counts of units of all time stamps in an array, without missing values."""
    type_ = array.type
    if pa.types.is_timestamp(type_):
        yield to_numpy(array.drop_null().cast(pa.int64()))
    elif pa.types.is_struct(type_):
        for part in array.flatten():
            yield from _moments(part)
    elif pa.types.is_map(type_):
        yield from _moments(array.keys)
        yield from _moments(array.items)
    elif pa.types.is_nested(type_):
        yield from _moments(array.flatten())
