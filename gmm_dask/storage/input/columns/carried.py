"""Columns and folder keys that go to the labels, each with one type in all chunks of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from gmm_dask.errors import DataError
from gmm_dask.storage.input.columns.column_types import exact_cast, plain_type
from gmm_dask.storage.input.columns.one_type import ONE_TYPE
from gmm_dask.storage.input.listing.keys import key_value
from gmm_dask.storage.input.sources import ChunkSource
from gmm_dask.storage.store.object_errors import brief


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
        Of the columns of the file.
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
