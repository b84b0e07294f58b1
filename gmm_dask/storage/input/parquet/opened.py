"""Planned files while they are open: each is known to be the planned one, and is read in order."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import DataError, InputChangedError
from gmm_dask.storage.input.columns.arrays import OddValuesError, numbers
from gmm_dask.storage.input.columns.carried import carried_table
from gmm_dask.storage.input.columns.lists import Slot, slots_of
from gmm_dask.storage.input.columns.roles import is_number, number_type
from gmm_dask.storage.input.inputs import Input, open_input, readable, unreadable
from gmm_dask.storage.input.parquet.batches import Cursor, with_absent
from gmm_dask.storage.input.parquet.footers import footer_bytes, parse_footer
from gmm_dask.storage.input.parquet.int96 import INT96, int96_columns, is_cut
from gmm_dask.storage.input.parquet.row_groups import WRITE_AGAIN
from gmm_dask.storage.input.problems import Problems
from gmm_dask.storage.input.sources import ChunkSource
from gmm_dask.storage.store.object_errors import brief

BLOCK_ROWS = 8192  # rows that are turned from columns into rows while they are in the cache
BATCH_BYTES = 2 << 20  # decoded values held beside the result
MAX_BATCH_ROWS = 1 << 16
LEAST_VECTORS = 512  # rows of a batch of lists, each of which may be long
COLUMNS_AT_ONCE = 32  # each open column holds a page of a megabyte or two
MAX_OPEN_COLUMNS = 128  # that wait for the next part of their row group
PLAN_AGAIN = "Run again: a new plan takes the file as it is now."


class PlannedFiles:
    """Planned files, one open at a time; chunks of a file that follow each other share it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._file: OpenFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def open(self, source: ChunkSource) -> OpenChunk:
        """The chunk in its open file, until that of another file is asked for.

        Raises
        ------
        InputChangedError
            The file is not the one that was planned.
        DataError
            It must not be read, or is damaged.
        InputError
            Its storage fails.
        """
        if not source.row_groups:
            return OpenChunk(source, NoFile())
        if self._file is None or not self._file.is_of(source):
            self._close()
            with readable(source.name):
                self._file = OpenFile(source, self._stack.enter_context(_input(source)))
        return OpenChunk(source, self._file)

    def _close(self) -> None:
        self._file = None
        self._stack.close()


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk whose file is opened when it is asked for.

    Parameters
    ----------
    source : ChunkSource
    files : PlannedFiles
    decoded : (n, d), optional
        The features of the chunk, where someone has them.
    """

    source: ChunkSource
    files: PlannedFiles
    decoded: npt.NDArray[Any] | None = None

    def open(self) -> OpenChunk:
        """See PlannedFiles."""
        return self.files.open(self.source)

    def blocks(
        self, chunk: OpenChunk, columns: Sequence[str], dtype: str
    ) -> Iterator[tuple[int, npt.NDArray[np.floating[Any]]]]:
        """The features block by block; they are decoded only where nobody has them."""
        if self.decoded is None:
            yield from chunk.blocks(columns, dtype)
            return
        for row in range(0, len(self.decoded), MAX_BATCH_ROWS):
            yield row, self.decoded[row : row + MAX_BATCH_ROWS]


class NoFile:
    """What a chunk of no row groups is read from: there need not be a file."""

    stream: Any = None
    metadata: Any = None
    schema: Any = None
    types: ClassVar[dict[str, pa.DataType]] = {}

    def check_unchanged(self) -> None:
        """Nothing can have changed."""

    def check_moments(self, groups: Sequence[int], columns: Sequence[str]) -> None:
        """There is no moment to check."""

    def rows(self, *_: Any) -> Iterator[pa.RecordBatch]:
        """See OpenFile."""
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
            raise changed(source, "its footer is another")
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
            raise changed(source, "it is gone") from error
        if state != source.state:
            raise changed(source, source.state.difference_of(state))

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
        """Have the cursor for the next part, and as many others as there is room for."""
        self._cursors[key] = cursor
        while sum(len(columns) for _, columns in self._cursors) > MAX_OPEN_COLUMNS:
            del self._cursors[next(iter(self._cursors))]  # the one that was used least lately


class OpenChunk:
    """A chunk in its open file."""

    def __init__(self, source: ChunkSource, file: OpenFile | NoFile) -> None:
        self.source, self.file = source, file

    def check_columns(self, columns: Sequence[str], numbers: bool = False) -> None:
        """Raise DataError for every column that is missing, or is no number where it must be.

        A chunk of no rows needs no columns: the plan has looked at what its file has.
        """
        problems, types = Problems(), self.file.types
        for slot in slots_of(columns, types) if self.source.n_rows else ():
            name = slot.column
            where = f"{self.source.name}, column {name!r}"
            if name not in types:
                has = ", ".join(types)
                problems.add("columns", f"{where}: is missing. The file has: {has}.")
            elif numbers and not is_number(number_type(slot.value_type(types[name]))):
                problems.add("columns", f"{where}: is {types[name]}, not a number.")
        problems.raise_any()

    def fill(self, X: npt.NDArray[Any], features: Sequence[str]) -> None:
        """Put the features into X (n, len(features)), row by row."""
        self.check_columns(features, numbers=True)
        slots = slots_of(features, self.file.types)
        for first in range(0, len(slots), COLUMNS_AT_ONCE):
            group = slots[first : first + COLUMNS_AT_ONCE]
            for row, batch in self._batches(group):
                self._fill(X[row : row + batch.num_rows], batch, group, row)

    def features(self, columns: Sequence[str], dtype: str) -> npt.NDArray[np.floating[Any]]:
        """The columns as rows, (n, len(columns)); a null is NaN."""
        X = np.empty((self.source.n_rows, len(columns)), dtype=dtype)
        self.fill(X, columns)
        return X

    def weights(self, column: str) -> npt.NDArray[np.float64]:
        """A column as numbers, (n,); a null is NaN."""
        return np.asarray(self.features((column,), "float64")[:, 0], dtype=np.float64)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns and folder keys, in the order given, each with one type in all chunks of a plan.

        Dictionaries are decoded and large strings become strings; a column that files write with
        several types has the one that holds them all. Folder keys are strings, unless files or the
        log of their table give them a type.

        Raises
        ------
        DataError
            A moment is beyond the range of the finer unit that other files have; also as features.
        """
        keys = dict(self.source.keys)
        stored = [name for name in dict.fromkeys(columns) if name not in keys]
        self.check_columns(stored)
        found = (batch for _, batch in self.batches(stored)) if stored else iter(())
        table = carried_table(self.source, columns, self.file.types, found)
        self.file.check_moments(self.source.row_groups, stored)  # which are known to be readable
        return table

    def blocks(
        self, features: Sequence[str], dtype: str
    ) -> Iterator[tuple[int, npt.NDArray[np.floating[Any]]]]:
        """The same rows batch by batch, where so many columns are read at once."""
        self.check_columns(features, numbers=True)
        slots = slots_of(features, self.file.types)
        if len(slots) > COLUMNS_AT_ONCE:
            yield 0, self.features(features, dtype)
            return
        for row, batch in self._batches(slots):
            X = np.empty((batch.num_rows, len(features)), dtype=dtype)
            self._fill(X, batch, slots, row)
            yield row, X

    def _fill(
        self, rows: npt.NDArray[Any], batch: pa.RecordBatch, slots: Sequence[Slot], first: int
    ) -> None:
        """A batch into rows, a block at a time: its rows stay in the cache meanwhile."""
        columns = [self.numbers(batch, slot, first) for slot in slots]
        for start in range(0, rows.shape[0], BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            for slot, column in zip(slots, columns, strict=True):
                block[:, slot.where] = column[start : start + BLOCK_ROWS]

    def _batches(self, slots: Sequence[Slot]) -> Iterator[tuple[int, pa.RecordBatch]]:
        n_values = sum(slot.length or 1 for slot in slots)
        return self.batches([slot.column for slot in slots], n_values)

    def batches(
        self, columns: Sequence[str], n_values: int | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The chunk's rows batch by batch, each with the place of its first row in the chunk.

        A row has one value in each column, unless `n_values` says how many it has in all.
        """
        done, check_unchanged = 0, self.file.check_unchanged
        try:
            for batch in self.file.rows(self.source, columns, n_values or len(columns)):
                yield done, batch
                done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, MemoryError):
                raise
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(self.source.name, error) from error  # not the file's fault
            check_unchanged()
            raise self._damage(error, columns) from error
        check_unchanged()
        if done != self.source.n_rows:
            raise changed(self.source, f"it has {done} of the {self.source.n_rows} rows")

    def numbers(self, batch: pa.RecordBatch, slot: Slot, row: int) -> npt.NDArray[Any]:
        """A column of a batch as numbers, NaN for null; raises DataError where that rounds."""
        try:
            return numbers(batch.column(slot.column), slot.length)
        except OddValuesError as error:
            where = f"{self._where(row)}, column {slot.column!r}"
            raise DataError(f"{where}: {error}") from None

    def _where(self, row: int) -> str:
        """File and row group of a row of the chunk."""
        at = bisect_right(self.source.group_stops, self.source.start + row)
        return f"{self.source.name}, row group {self.source.row_groups[at]}"

    def _damage(self, error: Exception, columns: Sequence[str]) -> DataError:
        """Which columns of which row groups cannot be decoded."""
        problems = Problems()
        for group in self.source.row_groups:
            for name in columns:
                reason = self._fault(group, name)
                if reason:
                    where = f"{self.source.name}, row group {group}, column {name!r}"
                    line = f"{where}: the data are damaged: {reason}. {WRITE_AGAIN}"
                    problems.add("damaged columns", line)
        if not problems:
            line = f"{self._where(0)}: cannot be read: {brief(error)}. {WRITE_AGAIN}"
            problems.add("unreadable", line)
        return DataError(problems.lines())

    def _fault(self, group: int, name: str) -> str | None:
        try:
            batches = self.file.iterate(MAX_BATCH_ROWS, (group,), (name,))
            found = sum(batch.num_rows for batch in batches)
        except (pa.ArrowException, OSError) as error:
            return brief(error)
        expected = self.file.metadata.row_group(group).num_rows
        return None if found == expected else f"it has {found} values for {expected} rows"


@contextmanager
def open_planned(source: ChunkSource) -> Iterator[OpenChunk]:
    """The chunk in its file for the time of the block; raises as PlannedFiles does."""
    with readable(source.name), PlannedFiles() as files:
        yield files.open(source)


def _input(source: ChunkSource) -> Input:
    try:
        return open_input(source.url)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise changed(source, "it is gone") from error
    except IsADirectoryError as error:
        raise changed(source, "a folder took its place") from error
    except PermissionError as error:
        raise DataError(
            f"{source.name}: cannot be read: {error.strerror}. Grant read access to it."
        ) from error


def changed(source: ChunkSource, what: str) -> InputChangedError:
    """The error of a file that is not the planned one."""
    return InputChangedError(f"{source.name}: changed after it was planned: {what}. {PLAN_AGAIN}")
