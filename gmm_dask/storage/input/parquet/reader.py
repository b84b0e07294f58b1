"""Reads the rows of chunks, and nothing but the files that were planned."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.errors import DataError
from gmm_dask.storage.arrow import OddValuesError, numbers
from gmm_dask.storage.input.columns.column_types import exact_cast, key_value, plain_type
from gmm_dask.storage.input.columns.selection import Slot, is_number, number_type, slots_of
from gmm_dask.storage.input.columns.variants import ONE_TYPE
from gmm_dask.storage.input.inputs import Problems, readable, unreadable
from gmm_dask.storage.input.parquet.opened import (
    BLOCK_ROWS,
    MAX_BATCH_ROWS,
    NoFile,
    OpenFile,
    file_changed,
    planned_input,
)
from gmm_dask.storage.input.parquet.row_groups import WRITE_AGAIN
from gmm_dask.storage.input.plan import Plan
from gmm_dask.storage.input.sources import ChunkSource, sources
from gmm_dask.storage.store.object_store import brief

COLUMNS_AT_ONCE = 32  # each open column holds a page of a megabyte or two


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
            The storage of the file fails.
        """
        if not source.row_groups:
            return OpenChunk(source, NoFile())
        if self._file is None or not self._file.is_of(source):
            self._close()
            with readable(source.name):
                self._file = OpenFile(source, self._stack.enter_context(planned_input(source)))
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
        """The chunk in its open file; raises as PlannedFiles.open does."""
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
        """The features batch by batch, each with its first row."""
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
            raise file_changed(self.source, f"it has {done} of the {self.source.n_rows} rows")

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


Features = npt.NDArray[np.floating[Any]]


Weights = npt.NDArray[np.float64]


def read_features(source: ChunkSource, columns: Sequence[str], dtype: str) -> Features:
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


def read_chunks(
    chunks: Sequence[Sequence[ChunkSource]],
    columns: Sequence[str],
    dtype: str,
    weight_column: str | None = None,
) -> Iterator[tuple[Features, Weights | None]]:
    """Features (n, d) of one chunk after the other, and weights (n,), if any.

    A file is opened once for what follows of it, and what chunks have of one row group is decoded
    once. Whoever is done with a chunk when asking for the next takes the memory of one.

    Parameters
    ----------
    chunks : sequence of sequences of ChunkSource
        The rows of each chunk, which becomes one array.

    Raises
    ------
    As read_features does.
    """
    with PlannedFiles() as files:
        for sources in chunks:
            yield _rows(files, sources, columns, dtype, weight_column)


def read_table(source: ChunkSource, columns: Sequence[str]) -> pa.Table:
    """Columns and folder keys of a chunk; see OpenChunk.table. Raises as read_features does."""
    with open_planned(source) as chunk:
        return chunk.table(columns)


def carried_schema(plan: Plan, columns: Sequence[str]) -> pa.Schema:
    """Types that columns and folder keys have in the labels of a plan; no row is read."""
    first = sources(plan)[0]
    return read_table(replace(first, stop=first.start), columns).schema


def _rows(
    files: PlannedFiles,
    sources: Sequence[ChunkSource],
    columns: Sequence[str],
    dtype: str,
    weight_column: str | None,
) -> tuple[Features, Weights | None]:
    n_rows = sum(source.n_rows for source in sources)
    X = np.empty((n_rows, len(columns)), dtype=dtype)
    weights = None if weight_column is None else np.empty((n_rows, 1))
    first = 0
    for source in sources:
        chunk, at = files.open(source), slice(first, first + source.n_rows)
        if weight_column is not None and weights is not None:
            chunk.check_columns((*columns, weight_column), numbers=True)
            chunk.fill(weights[at], (weight_column,))
        chunk.fill(X[at], columns)
        first = at.stop
    return X, None if weights is None else weights[:, 0]


def carried_table(
    source: ChunkSource,
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    batches: Iterable[pa.RecordBatch],
) -> pa.Table:
    """The columns and keys of a chunk, in the order given.

    Parameters
    ----------
    source : ChunkSource
    names : sequence of str
    types : mapping of str to Arrow type
        Types of the columns of the file.
    batches : iterable of RecordBatch
        The rows of the chunk with the columns that are no keys, where there are such.

    Raises
    ------
    DataError
        A value has no place in the type that the files have in common.
    """
    keys, widened = dict(source.keys), dict(source.widened)
    stored = [name for name in dict.fromkeys(names) if name not in keys]
    table = pa.table({"": pa.nulls(source.n_rows)})  # a table of no columns forgets its rows
    if stored:
        schema = pa.schema(
            [(name, widened.get(name, plain_type(types.get(name, pa.null())))) for name in stored]
        )
        table = pa.Table.from_batches(
            [_carried(source, batch, schema) for batch in batches], schema=schema
        )
    for name in dict.fromkeys(names):
        if name in keys:
            value = key_value(keys[name], widened.get(name, pa.string()))
            table = table.append_column(name, pa.repeat(value, source.n_rows))
    return table.select(list(names))


def _carried(source: ChunkSource, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        try:
            arrays.append(exact_cast(batch.column(field.name), field.type))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{source.name}, column {field.name!r}: holds a value that {field.type}, "
                f"the type of all files, has no room for: {brief(error)}. {ONE_TYPE}, or leave it "
                "out of the labels."
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
