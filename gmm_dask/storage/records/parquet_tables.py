"""Arrow tables as Parquet bytes: the writer settings of all files we write."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import OutputError


def parquet_bytes(
    table: pa.Table,
    metadata: Mapping[str, str] | None = None,
    *,
    counting: Collection[str] = (),
    plain: Collection[str] = (),
) -> bytes:
    """A Parquet file in memory; identical tables give identical bytes, however they are cut.

    Dictionary columns are written as plain values, pages carry checksums, and the only metadata
    are those given here: what a frame library left in the schema is dropped.

    Parameters
    ----------
    counting : names
        Integers that grow from row to row, of which the differences are written.
    plain : names
        Columns that compressing would hardly make smaller.

    Raises
    ------
    OutputError
        A column has a type that Parquet cannot hold, or too many values.
    """
    written = _in_one_piece(_plain(table)).replace_schema_metadata(dict(metadata or {}))
    as_they_are = {*counting, *plain}
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(
            written,
            sink,
            compression={
                path: "none" if path in as_they_are else "zstd" for path in _paths(written.schema)
            },
            column_encoding=dict.fromkeys(counting, "DELTA_BINARY_PACKED"),
            # Dictionaries help repeated words and cost time on floats, which rarely repeat.
            use_dictionary=[field.name for field in written.schema if _repeats(field.type)],
            write_page_checksum=True,
        )
    except (pa.ArrowException, OSError) as error:
        types = ", ".join(f"{field.name}: {field.type}" for field in written.schema)
        raise OutputError(
            f"The columns {types} cannot be written as Parquet: {error}. Keep fewer columns."
        ) from error
    return bytes(sink.getvalue().to_pybytes())


def read_parquet_bytes(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Columns of a Parquet file in memory, page checksums verified; raises pyarrow's errors."""
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        return file.read(columns=columns, use_threads=False)


def _in_one_piece(table: pa.Table) -> pa.Table:
    """The writer's pages depend on where the pieces of a table meet."""
    try:
        return table.combine_chunks()
    except pa.ArrowInvalid as error:
        lists = [field.name for field in table.schema if pa.types.is_nested(field.type)]
        raise OutputError(
            f"The lists of {', '.join(map(repr, lists))} hold too many values for one label part "
            f"({error}). Set memory.chunk_bytes lower, or leave them out of labels.keep."
        ) from error


def _plain(table: pa.Table) -> pa.Table:
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(i).cast(field.type.value_type)
            table = table.set_column(i, pa.field(field.name, field.type.value_type), values)
    return table


def _paths(schema: pa.Schema) -> Iterator[str]:
    """What Parquet calls the columns that hold the values: lists and records have some inside."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return (leaves.column(i).path for i in range(len(leaves)))


def _repeats(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_int32(kind)
    )
