"""Batches of rows as they are decoded from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa


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
    """The columns in the order given; those that the batch has not hold missing values."""
    names, absent = batch.schema.names, pa.nulls(batch.num_rows)
    arrays = [batch.column(name) if name in names else absent for name in columns]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))
