"""Reads the rows of one chunk, and nothing but the file that was planned."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gmm_dask.errors import DataError, InputChangedError
from gmm_dask.storage.footers import footer_bytes, parse_footer
from gmm_dask.storage.inputs import FileState, Input, open_input, readable
from gmm_dask.storage.object_errors import brief
from gmm_dask.storage.plan import REMEDIES, Chunk, Partition, Plan
from gmm_dask.storage.problems import Problems, shown
from gmm_dask.storage.roles import cast_of, is_number, number_type, plain_type
from gmm_dask.storage.row_groups import MAX_EXACT, WRITE_AGAIN

BLOCK_ROWS = 4096  # rows that are turned from columns into rows while they are in the cache
BATCH_BYTES = 2 << 20  # decoded values held beside the result
MAX_BATCH_ROWS = 1 << 16
COLUMNS_AT_ONCE = 32  # each open column holds a page of a megabyte or two
PLAN_AGAIN = "Run again: a new plan takes the file as it is now."


@dataclass(frozen=True)
class ChunkSource:
    """All that a worker needs to read one chunk.

    Parameters
    ----------
    url : str
        Where the file is opened.
    name : str
        What the file is called in messages and labels.
    size, mtime_ns, etag, footer_sha256
        The file as it was planned.
    row_groups : tuple of int
        Indices of the row groups that hold the rows.
    group_stops : tuple of int
        Row of the file after the last one of each of these.
    skip : int
        Rows of the first of these that come before `start`.
    start, stop : int
        Rows of the file.
    keys : tuple of (str, str or None)
        Folder keys of the file.
    """

    url: str
    name: str
    size: int
    mtime_ns: int
    etag: str | None
    footer_sha256: str
    row_groups: tuple[int, ...]
    group_stops: tuple[int, ...]
    skip: int
    start: int
    stop: int
    keys: tuple[tuple[str, str | None], ...]

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


def chunk_names(plan: Plan) -> tuple[str, ...]:
    """What each chunk is called in messages: file, row groups, rows, bytes of them in memory."""
    row_bytes = len(plan.features) * np.dtype(plan.dtype).itemsize
    return tuple(_name(source, row_bytes) for source in sources(plan))


def _name(source: ChunkSource, row_bytes: int) -> str:
    first, last = source.row_groups[0], source.row_groups[-1]
    groups = f"row group {first}" if first == last else f"row groups {first} to {last}"
    return (
        f"{source.name}, {groups}, rows {source.start} to {source.stop - 1} "
        f"({source.n_rows * row_bytes} bytes in memory)"
    )


def _source(plan: Plan, partition: Partition, stops: Sequence[int], chunk: Chunk) -> ChunkSource:
    first, last = bisect_right(stops, chunk.start), bisect_right(stops, chunk.stop - 1)
    groups = tuple(group for group in range(first, last + 1) if partition.row_groups[group])
    return ChunkSource(
        url=plan.url(partition),
        name=partition.name,
        size=partition.size,
        mtime_ns=partition.mtime_ns,
        etag=partition.etag,
        footer_sha256=partition.footer_sha256,
        row_groups=groups,
        group_stops=tuple(stops[group] for group in groups),
        skip=chunk.start - (stops[first] - partition.row_groups[first]),
        start=chunk.start,
        stop=chunk.stop,
        keys=partition.keys,
    )


def read_features(
    source: ChunkSource, columns: Sequence[str], dtype: str
) -> npt.NDArray[np.floating[Any]]:
    """The features of a chunk, one row after the other; a null is NaN.

    Parameters
    ----------
    columns : sequence of str
        In the order of the result's columns.
    dtype : {"float32", "float64"}

    Returns
    -------
    (n, d), C-contiguous

    Raises
    ------
    InputChangedError
        The file is not the one that was planned.
    DataError
        The file is damaged, or a column is missing, not a number, or too large for float64.
    """
    with open_planned(source) as chunk:
        return chunk.features(columns, dtype)


def read_rows(
    source: ChunkSource, columns: Sequence[str], dtype: str, weight_column: str | None = None
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.float64] | None]:
    """Features (n, d) of a chunk and its weights (n,), if any, from a file opened once.

    Raises as read_features does.
    """
    with open_planned(source) as chunk:
        if weight_column is None:
            return chunk.features(columns, dtype), None
        chunk.check_columns((*columns, weight_column), numbers=True)
        weights = chunk.features((weight_column,), "float64")[:, 0]
        return chunk.features(columns, dtype), np.asarray(weights, dtype=np.float64)


def read_blocks(
    source: ChunkSource, columns: Sequence[str], dtype: str
) -> Iterator[tuple[int, npt.NDArray[np.floating[Any]]]]:
    """As read_features, some rows at a time, each block with the place of its first row.

    Who is done with a block when it asks for the next takes the memory of one, not of a chunk.
    Of more than COLUMNS_AT_ONCE columns there is one block.
    """
    with open_planned(source) as chunk:
        yield from chunk.blocks(columns, dtype)


def read_weights(source: ChunkSource, column: str) -> npt.NDArray[np.float64]:
    """The weights of a chunk's rows (n,); a null is NaN. Raises as read_features does."""
    return np.asarray(read_features(source, (column,), "float64")[:, 0], dtype=np.float64)


def read_table(source: ChunkSource, columns: Sequence[str]) -> pa.Table:
    """Columns and folder keys of a chunk, in the order given, in their own plain types.

    Dictionaries are decoded and large strings become strings, so that the tables of all chunks
    have one schema; folder keys are strings. Raises as read_features does.
    """
    keys = dict(source.keys)
    stored = [name for name in dict.fromkeys(columns) if name not in keys]
    batches = []
    if stored:
        with open_planned(source) as chunk:
            chunk.check_columns(stored)
            schema = pa.schema([(name, plain_type(chunk.types[name])) for name in stored])
            for _, batch in chunk.batches(stored):
                arrays = [_plain(batch.column(name)) for name in stored]
                batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            table = pa.Table.from_batches(batches, schema=schema)
    else:
        table = pa.table({"": pa.nulls(source.n_rows)})  # a table of no columns forgets its rows
    for name in dict.fromkeys(columns):
        if name in keys:
            value = pa.repeat(pa.scalar(keys[name], pa.string()), source.n_rows)
            table = table.append_column(name, value)
    return table.select(list(columns))


class OpenChunk:
    """A chunk's file while it is open, known to be the planned one."""

    def __init__(self, source: ChunkSource, file: Input) -> None:
        self.source = source
        self._file = file
        self.check_unchanged()
        content = footer_bytes(source.name, file.stream, source.size)
        if hashlib.sha256(content).hexdigest() != source.footer_sha256:
            raise _changed(source, "its footer is another")
        footer = parse_footer(source.name, content)
        self.stream = file.stream
        self.metadata, self.schema = footer.metadata, footer.schema_arrow
        self.types = {field.name: field.type for field in self.schema}
        self._parquet = pq.ParquetFile(
            file.stream,
            metadata=footer.metadata,
            pre_buffer=False,
            buffer_size=file.buffer_size,
            page_checksum_verification=True,
        )

    def check_unchanged(self) -> None:
        """Raise InputChangedError unless the open file is still as it was planned."""
        source = self.source
        try:
            state = self._file.state()
        except FileNotFoundError as error:
            raise _changed(source, "it is gone") from error
        if state != FileState(source.size, source.mtime_ns, source.etag):
            what = "it was written to or replaced"
            if state.size != source.size:
                what = f"its size went from {source.size} to {state.size} bytes"
            raise _changed(source, what)

    def check_columns(self, columns: Sequence[str], numbers: bool = False) -> None:
        """Raise DataError for every column that is missing, or is no number where it must be."""
        problems = Problems()
        for name in columns:
            where = f"{shown(self.source.name)}, column {name!r}"
            if name not in self.types:
                has = ", ".join(self.types)
                problems.add("columns", f"{where}: is missing. The file has: {has}.")
            elif numbers and not is_number(number_type(self.types[name])):
                problems.add("columns", f"{where}: is {self.types[name]}, not a number.")
        problems.raise_any()

    def features(self, columns: Sequence[str], dtype: str) -> npt.NDArray[np.floating[Any]]:
        """The columns as rows, (n, len(columns))."""
        self.check_columns(columns, numbers=True)
        X = np.empty((self.source.n_rows, len(columns)), dtype=dtype)
        for first in range(0, len(columns), COLUMNS_AT_ONCE):
            group = columns[first : first + COLUMNS_AT_ONCE]
            part = X[:, first : first + len(group)]
            for row, batch in self.batches(group):
                self._fill(part[row : row + batch.num_rows], batch, group, row)
        return X

    def blocks(
        self, columns: Sequence[str], dtype: str
    ) -> Iterator[tuple[int, npt.NDArray[np.floating[Any]]]]:
        """The same rows batch by batch, where so many columns are read at once."""
        if len(columns) > COLUMNS_AT_ONCE:
            yield 0, self.features(columns, dtype)
            return
        self.check_columns(columns, numbers=True)
        for row, batch in self.batches(columns):
            X = np.empty((batch.num_rows, len(columns)), dtype=dtype)
            self._fill(X, batch, columns, row)
            yield row, X

    def _fill(
        self, rows: npt.NDArray[Any], batch: pa.RecordBatch, names: Sequence[str], first: int
    ) -> None:
        """A batch into rows, a block at a time: its rows stay in the cache meanwhile."""
        columns = [self.numbers(batch, name, first) for name in names]
        for start in range(0, rows.shape[0], BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            for j, column in enumerate(columns):
                block[:, j] = column[start : start + BLOCK_ROWS]

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The chunk's rows batch by batch, each with the place of its first row in the chunk."""
        size = BATCH_BYTES // (8 * len(columns)) // BLOCK_ROWS * BLOCK_ROWS
        size = min(max(size, BLOCK_ROWS), MAX_BATCH_ROWS)
        skip, done = self.source.skip, 0
        try:
            for batch in self._iterate(size, self.source.row_groups, columns):
                wanted = batch.slice(min(skip, batch.num_rows), self.source.n_rows - done)
                skip = max(0, skip - batch.num_rows)
                if wanted.num_rows:
                    yield done, wanted
                done += wanted.num_rows
                if done == self.source.n_rows:
                    break
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise  # not the file's fault
            self.check_unchanged()
            raise self._damage(error, columns) from error
        self.check_unchanged()
        if done != self.source.n_rows:
            raise _changed(self.source, f"it has {done} of the {self.source.n_rows} rows")

    def numbers(self, batch: pa.RecordBatch, name: str, row: int) -> npt.NDArray[Any]:
        """A column of a batch as numbers, NaN for null; raises DataError where that rounds."""
        array = batch.column(name)
        if pa.types.is_null(array.type):
            return np.full(len(array), np.nan)
        if cast_of(array.type):
            array = array.cast(number_type(array.type))  # the plan has it that this was asked for
        if not pa.types.is_integer(array.type):
            return np.asarray(array.to_numpy(zero_copy_only=False))
        values = np.asarray((pc.fill_null(array, 0) if array.null_count else array).to_numpy())
        if values.dtype.itemsize == 8 and _max_magnitude(values) > MAX_EXACT:
            raise DataError(
                f"{self._where(row)}, column {name!r}: integers up to {_max_magnitude(values)}, "
                f"beyond 2^53. {REMEDIES['inexact']}"
            )
        if not array.null_count:
            return values
        numbers = values.astype(np.float64)
        numbers[np.asarray(array.is_null().to_numpy(zero_copy_only=False))] = np.nan
        return numbers

    def _where(self, row: int) -> str:
        """File and row group of a row of the chunk."""
        at = bisect_right(self.source.group_stops, self.source.start + row)
        return f"{shown(self.source.name)}, row group {self.source.row_groups[at]}"

    def _iterate(
        self, size: int, groups: Sequence[int], columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        return self._parquet.iter_batches(  # type: ignore[no-any-return]
            size, row_groups=list(groups), columns=list(columns), use_threads=False
        )

    def _damage(self, error: Exception, columns: Sequence[str]) -> DataError:
        """Which columns of which row groups cannot be decoded."""
        problems = Problems()
        for group in self.source.row_groups:
            for name in columns:
                reason = self._fault(group, name)
                if reason:
                    where = f"{shown(self.source.name)}, row group {group}, column {name!r}"
                    line = f"{where}: the data are damaged: {reason}. {WRITE_AGAIN}"
                    problems.add("damaged columns", line)
        if not problems:
            line = f"{self._where(0)}: cannot be read: {brief(error)}. {WRITE_AGAIN}"
            problems.add("unreadable", line)
        return DataError(problems.lines())

    def _fault(self, group: int, name: str) -> str | None:
        try:
            batches = self._iterate(MAX_BATCH_ROWS, (group,), (name,))
            found = sum(batch.num_rows for batch in batches)
        except (pa.ArrowException, OSError) as error:
            return brief(error)
        expected = self.metadata.row_group(group).num_rows
        return None if found == expected else f"it has {found} values for {expected} rows"


@contextmanager
def open_planned(source: ChunkSource) -> Iterator[OpenChunk]:
    """The chunk's file for the time of the block; raises InputChangedError where it is another."""
    with readable(source.name), _opened(source) as file:
        yield OpenChunk(source, file)


def _opened(source: ChunkSource) -> Input:
    try:
        return open_input(source.url)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _changed(source, "it is gone") from error
    except IsADirectoryError as error:
        raise _changed(source, "a folder took its place") from error
    except PermissionError as error:
        raise DataError(
            f"{shown(source.name)}: cannot be read: {error.strerror}. Grant read access to it."
        ) from error


def _plain(array: pa.Array) -> pa.Array:
    plain = plain_type(array.type)
    return array if array.type == plain else array.cast(plain)


def _max_magnitude(values: npt.NDArray[Any]) -> int:
    return max(abs(int(values.min(initial=0))), int(values.max(initial=0)))


def _changed(source: ChunkSource, what: str) -> InputChangedError:
    return InputChangedError(
        f"{shown(source.name)}: changed after it was planned: {what}. {PLAN_AGAIN}"
    )
