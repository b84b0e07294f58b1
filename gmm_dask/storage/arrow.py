"""NumPy's arrays as Arrow's and back; Arrow's own way to either imports pandas."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import OutputError
from gmm_dask.kinds import INEXACT, inexact
from gmm_dask.storage.input.columns.selection import cast_of, is_list, number_type

_SCHEMA = b"ARROW:schema"  # where a Parquet file notes the schema that it was written from


class OddValuesError(ValueError):
    """Values that cannot be taken: which, and the remedy; the caller knows where they are."""


def numbers(array: pa.Array, length: int | None = None) -> npt.NDArray[Any]:
    """The numbers of a column, NaN for null; integers remain integers where none is null.

    Parameters
    ----------
    array : (n,)
        Values of a type that is a number, or that was asked to be taken for one.
    length : int, optional
        Length of each list, where the array is one of lists.

    Returns
    -------
    (n,), or (n, length)

    Raises
    ------
    OddValuesError
        float64 would round an integer, or a list is of another length.
    """
    if pa.types.is_null(array.type):
        return np.full(len(array) if length is None else (len(array), length), np.nan)
    if length is not None:
        if not is_list(array.type):
            raise OddValuesError(f"values of type {array.type}, where others are lists.")
        return _vectors(array, length)
    if cast_of(array.type):
        array = array.cast(number_type(array.type))
    values, absent = to_numpy(array), nulls(array) if array.null_count else None
    if not pa.types.is_integer(array.type):
        return values if absent is None else np.where(absent, values.dtype.type(np.nan), values)
    if absent is not None:
        values = np.where(absent, values.dtype.type(0), values)
    wrong = inexact(values)
    if wrong is not None:
        raise OddValuesError(f"integers up to {wrong}, beyond 2^53. {INEXACT}")
    return values if absent is None else np.where(absent, np.nan, values.astype(np.float64))


def list_length(array: pa.Array) -> int | None:
    """Length of the first list that is not null; None where all are."""
    lengths = _lists(array).drop_null().value_lengths()
    return int(to_numpy(lengths)[0]) if len(lengths) else None


def _lists(array: pa.Array) -> pa.Array:
    """The lists of an array of lists; a tensor stores them."""
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _vectors(array: pa.Array, length: int) -> npt.NDArray[Any]:
    """Lists of one length as rows; one that is null is a row of NaN."""
    lists = _lists(array)
    absent = nulls(lists) if lists.null_count else None
    there = lists if absent is None else lists.drop_null()
    lengths = to_numpy(there.value_lengths())
    wrong = lengths[lengths != length]
    if wrong.size:
        raise OddValuesError(
            f"a list of {wrong[0]} values, where others have {length}. Give all lists one length."
        )
    values = numbers(there.flatten()).reshape(len(there), length)
    if absent is None:
        return values
    rows = np.full((len(lists), length), np.nan, np.result_type(values.dtype, np.float32))
    rows[~absent] = values
    return rows


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Numbers without a copy; what stands where one is null is anything."""
    buffers = array.buffers()
    if buffers[1] is None:  # of no values
        return np.empty(0, array.type.to_pandas_dtype())
    values = pa.Array.from_buffers(
        array.type, len(array), [None, buffers[1]], null_count=0, offset=array.offset
    )
    return np.from_dlpack(values)


def nulls(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Where an array is null, (n,)."""
    return to_numpy(array.is_null().cast(pa.uint8())).view(np.bool_)


def frame_of(data: bytes, columns: list[str] | None = None) -> Any:
    """The columns of a file as a DataFrame of pandas, in which every value is what it was.

    pandas itself takes integers beside a null for floats, moments in records for integers, no times
    of nanoseconds and no dates after the year 9999.
    """
    import pandas as pd

    table = pq.read_table(io.BytesIO(data), columns=columns)
    nullable = {
        pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name)
        for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    }
    nullable[pa.bool_()] = pd.BooleanDtype()
    others = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and column.type in nullable:
            others[name] = column.to_pandas(types_mapper=nullable.get)
        elif pa.types.is_nested(column.type) and not all(map(_pandas_holds, column.chunks)):
            others[name] = column.to_pandas(types_mapper=pd.ArrowDtype)
        elif pa.types.is_temporal(column.type):
            try:
                others[name] = column.to_pandas()
            except (pa.ArrowInvalid, ValueError, OverflowError):
                others[name] = column.to_pandas(types_mapper=pd.ArrowDtype)
    frame = table.drop_columns(list(others)).to_pandas()
    return pd.concat([frame, pd.DataFrame(others)], axis=1)[table.column_names] if others else frame


def _pandas_holds(array: pa.Array) -> bool:
    """Whether values are exact in lists of pandas: numbers, truth values and text, no others."""
    kind = array.type
    if pa.types.is_integer(kind):
        return bool(array.null_count == 0)
    if is_list(kind):
        return _pandas_holds(_lists(array).values)
    others = (pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_dictionary)
    return any(is_held(kind) for is_held in others)


def to_arrow(
    values: npt.NDArray[Any], type_: pa.DataType, absent: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Numbers of one type without a copy, or truth values, null where `absent`."""
    whole = np.ascontiguousarray(values, dtype=type_.to_pandas_dtype())
    there = None
    if absent is not None and absent.any():
        there = _bits(~absent)
    stored = _bits(whole) if pa.types.is_boolean(type_) else pa.py_buffer(whole)
    return pa.Array.from_buffers(type_, len(whole), [there, stored])


def words_to_arrow(words: Sequence[str]) -> pa.StringArray:
    """Texts as Arrow's."""
    encoded = [word.encode() for word in words]
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(words), buffers)


def to_arrow_lists(
    values: npt.NDArray[np.float64], absent: npt.NDArray[np.bool_] | None = None
) -> pa.ListArray:
    """Each row (k,) of the values (n, k) as a list, null where `absent`."""
    n, k = values.shape
    offsets = to_arrow(np.arange(n + 1) * k, pa.int32())
    of_all = to_arrow(values.ravel(), pa.float64())
    lists = pa.ListArray.from_arrays(offsets, of_all)
    if absent is None or not absent.any():
        return lists
    return pa.Array.from_buffers(
        lists.type, n, [_bits(~absent), lists.buffers()[1]], children=[of_all]
    )


class Lengths(NamedTuple):
    """How long the lists of n rows are, for columns whose lists are of one length.

    Parameters
    ----------
    n : int
    bounds : Buffer
        Where each list begins and the last one ends.
    present : Buffer or None
        Bits of the rows that have a list; None where all have.
    """

    n: int
    bounds: pa.Buffer
    present: pa.Buffer | None

    @classmethod
    def of(cls, counts: npt.NDArray[np.int32], absent: npt.NDArray[np.bool_]) -> Lengths:
        """Lists of so many values (n,); null where `absent`."""
        offsets = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        bounds = to_arrow(offsets, pa.int32()).buffers()[1]
        return cls(len(counts), bounds, _bits(~absent) if absent.any() else None)

    def lists(self, values: pa.Array) -> pa.ListArray:
        """The values, one list after the other."""
        kind, parts = pa.list_(values.type), [self.present, self.bounds]
        return pa.Array.from_buffers(kind, self.n, parts, children=[values])


def repeated_words(places: npt.NDArray[np.integer[Any]], words: pa.Array) -> pa.DictionaryArray:
    """The words at these places; Parquet has each of them written once."""
    return pa.DictionaryArray.from_arrays(to_arrow(places, pa.int32()), words)


def _bits(mask: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(mask, bitorder="little"))


def parquet_bytes(
    table: pa.Table,
    metadata: Mapping[str, str] | None = None,
    *,
    counting: Collection[str] = (),
    plain: Collection[str] = (),
) -> bytes:
    """A Parquet file in memory; identical tables give identical bytes, however they are cut.

    Dictionary columns, and lists of them, are read as plain values; pages carry checksums, and the
    only metadata are those given here: what a frame library left in the schema is dropped.

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
    words = [_inside(field) for field in written.schema if _lists_words(field.type)]
    as_they_are, sink = {*counting, *plain}, pa.BufferOutputStream()
    try:
        paths = [*_paths(written.schema)]
        with pq.ParquetWriter(
            sink,
            written.schema,
            compression={
                path: "none" if _outside(path) in as_they_are else "zstd" for path in paths
            },
            column_encoding=dict.fromkeys(counting, "DELTA_BINARY_PACKED"),
            # Dictionaries help repeated words and cost time on floats, which rarely repeat.
            use_dictionary=[
                *(field.name for field in written.schema if _repeats(field.type)),
                *words,
            ],
            # The least of the words says nothing, and Arrow would look each of them up for it.
            write_statistics=[path for path in paths if path not in words] if words else True,
            store_schema=not words,
            write_page_checksum=True,
        ) as file:
            file.write_table(written)
            if words:
                file.add_key_value_metadata(_in_words(written.schema))
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


def _lists_words(kind: pa.DataType) -> bool:
    """Whether a column has lists of repeated words."""
    return is_list(kind) and pa.types.is_dictionary(kind.value_type)


def _inside(field: pa.Field) -> str:
    """What Parquet calls the values of a column of lists."""
    return f"{field.name}.list.element"


def _outside(path: str) -> str:
    """The column of lists, or of single values, that Parquet calls so."""
    return path.removesuffix(".list.element")


def _in_words(schema: pa.Schema) -> dict[bytes, bytes]:
    """The metadata of a file whose readers shall see lists of plain words, as Arrow writes them."""
    for i, field in enumerate(schema):
        if _lists_words(field.type):
            plain = field.with_type(pa.list_(field.type.value_type.value_type))
            schema = schema.set(i, plain)
    noted = base64.b64encode(schema.serialize().to_pybytes())
    return {**(schema.metadata or {}), _SCHEMA: noted}


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
