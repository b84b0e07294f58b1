"""Parquet footers: what a file promises, read once, hashed, and checked for sense."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import DataError
from gmm_dask.storage.input.columns.column_types import Key, Keys, exact_cast, key_value, plain_type
from gmm_dask.storage.input.columns.selection import Length, Selection, pandas_note, types_of
from gmm_dask.storage.input.inputs import FileState, Input
from gmm_dask.storage.input.parquet.row_groups import (
    ENCRYPTED_FILE,
    WRITE_AGAIN,
    Oddity,
    check_row_groups,
    first_leaf,
)
from gmm_dask.storage.input.parquet.thrift import ThriftError

BATCH_ROWS = 1 << 16


def other_value(file: pq.ParquetFile, key: Key) -> str | None:
    """A value of the column that is not that of the key, as text; None where all are equal.

    Statistics decide where least and greatest value are the key's own; else the values are read.

    Raises
    ------
    pa.ArrowException, OSError
        The column cannot be read.
    """
    type_ = plain_type(file.schema_arrow.field(key.name).type)
    try:
        expected = key_value(key.text, type_)
    except pa.ArrowNotImplementedError:
        return f"values of type {type_}" if file.metadata.num_rows else None
    except pa.ArrowException:
        expected = None  # no value of this type is equal
    leaf = first_leaf(file.schema_arrow, key.name)
    for group in range(file.metadata.num_row_groups):
        if expected is not None and _is_constant(file.metadata.row_group(group), leaf, expected):
            continue
        for batch in file.iter_batches(
            BATCH_ROWS, row_groups=[group], columns=[key.name], use_threads=False
        ):
            values = exact_cast(batch.column(key.name), type_)
            at = _first_other(values, expected)
            if at is not None:
                return _text(values[at])
    return None


def _is_constant(group: pq.RowGroupMetaData, leaf: int, expected: pa.Scalar) -> bool:
    """Whether the statistics leave no value but this one."""
    found = group.column(leaf).statistics
    if found is None or not found.has_null_count:
        return False
    if not expected.is_valid:
        return bool(found.null_count == group.num_rows)
    # Of floats NaN is in no statistics, and the bounds of some other types are read in ways of
    # their own.
    is_plain = pa.types.is_signed_integer(expected.type) or pa.types.is_string(expected.type)
    value = expected.as_py() if is_plain else None
    return (
        is_plain and not found.null_count and found.has_min_max and found.min == value == found.max
    )


def _first_other(values: pa.Array, expected: pa.Scalar | None) -> int | None:
    import pyarrow.compute as pc

    if not len(values):
        return None
    if expected is None:
        return 0
    if not expected.is_valid:
        equal = values.is_null()
    elif pa.types.is_floating(values.type) and expected.as_py() != expected.as_py():
        equal = pc.is_nan(values)
    else:
        equal = pc.equal(values, expected)
    at = pc.index(pc.fill_null(equal, False), False).as_py()
    return None if at < 0 else int(at)


def _text(value: pa.Scalar) -> str:
    """A value as a message shows it; Arrow's own way to moments imports pandas."""
    if not value.is_valid:
        return "a missing value"
    try:
        return repr(value.cast(pa.string()).as_py())
    except pa.ArrowException:
        return f"a value of type {value.type}"


# Time stamps of 96 bits, as Spark, Hive and Impala write them, hold any nanosecond of any year.
# Arrow takes them for nanoseconds in 64 bits, where the year 9999 silently becomes 1816. They are
# read as microseconds, which hold every year, and moments of less than one are refused.
INT96: dict[str, Any] = {"coerce_int96_timestamp_unit": "us"}  # how each file is opened

MAGIC, ENCRYPTED = b"PAR1", b"PARE"
FIRST_READ = 1 << 16  # bytes of the end that are read at once; most footers are smaller
MAX_FOOTER_BYTES = 256 << 20  # a footer is parsed whole in memory

_NAMELESS_INDEX = re.compile(r"__index_level_\d+__")

Column = tuple[str, pa.DataType]


@dataclass(frozen=True)
class Footer:
    """The contents of the footer of one file.

    Parameters
    ----------
    name : str
    state : FileState
        State of the open file that the footer was read from.
    sha256 : str
        Hash of the footer's bytes.
    row_groups : tuple of int
        The number of rows of each row group.
    columns : tuple of (name, Arrow type)
        Top-level columns in the file's order; those that it is older than come last, without type.
    oddities : tuple of Oddity
        Oddities of the columns of interest.
    index_columns : frozenset of str
        Columns that pandas wrote from the index of a frame.
    lengths : mapping of str to Length
        Length of the lists of each column of lists of numbers.
    keys : tuple of Key
        Keys of the file's folders.
    contradictions : tuple of (name, str)
        Keys that are also columns, with a value of the column that is another.
    absent : tuple of str
        Columns of its table that the file is older than.
    moments : mapping of str to (int, int)
        Least and greatest value of each column of times that may go to labels, as far as the
        statistics tell them, in `stored_unit` of the column's type.
    """

    name: str
    state: FileState
    sha256: str
    row_groups: tuple[int, ...]
    columns: tuple[Column, ...]
    oddities: tuple[Oddity, ...]
    index_columns: frozenset[str] = frozenset()
    lengths: Mapping[str, Length] = field(default_factory=dict)
    keys: Keys = ()
    contradictions: tuple[tuple[str, str], ...] = ()
    absent: tuple[str, ...] = ()
    moments: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


def footer_of_none(name: str, schema: pa.Schema) -> Footer:
    """The footer that stands for a table without files; `name` is that of the table's log."""
    columns = tuple((field.name, field.type) for field in schema)
    return Footer(name, FileState(0, 0, None), hashlib.sha256().hexdigest(), (), columns, ())


def read_footer(
    name: str, file: Input, selection: Selection, keys: Keys = (), table_columns: Sequence[str] = ()
) -> Footer:
    """Read, hash and check the footer of an open file, as far as columns with a role go.

    Columns that are also keys of its folders are compared with them, if need be value by value.
    Of a file that is part of a table the missing ones of `table_columns` hold no values.

    Raises
    ------
    DataError
        Not a whole Parquet file; or one whose columns are those of the table in other letters.
    """
    state = file.state()
    content = footer_bytes(name, file.stream, state.size)
    footer = parse_footer(name, content)
    schema = footer.schema_arrow
    try:
        found = check_row_groups(name, content, state.size - len(content), schema, selection)
    except ThriftError as error:
        raise DataError(f"{name}: the footer is damaged: {error}. {WRITE_AGAIN}") from error
    absent = tuple(each for each in table_columns if each not in schema.names)
    _check_case(name, absent, schema.names)
    known = {*table_columns, *(key.name for key in keys)}  # other columns are not the table's
    columns = (
        *(column for column in types_of(schema) if not table_columns or column[0] in known),
        *((each, pa.null()) for each in absent),
    )
    unknown = (
        Oddity("null", group, each, f"{n_rows} nulls, as the file is older than the column")
        for each in absent
        if selection.minds("null", each)
        for group, n_rows in enumerate(found.rows)
    )
    sha256 = hashlib.sha256(content).hexdigest()
    index = frozenset(_index_columns(schema))
    contradictions = tuple(_contradictions(name, file, footer.metadata, keys))
    moments = dict(_moments(schema, footer.metadata, selection))
    return Footer(
        name,
        state,
        sha256,
        found.rows,
        columns,
        (*found.oddities, *unknown),
        index,
        found.lengths,
        keys,
        contradictions,
        absent,
        moments,
    )


def footer_bytes(name: str, stream: BinaryIO, size: int) -> bytes:
    """The footer with its length and magic; raises DataError where the file has none."""
    tail = _read(stream, max(0, size - FIRST_READ), size)
    if tail[-4:] == ENCRYPTED:
        raise DataError(f"{name}: {ENCRYPTED_FILE}")
    if tail[-4:] != MAGIC or size < 12:
        raise DataError(f"{name}: {_no_parquet(_read(stream, 0, min(size, 4)), size)}")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size - 4 or length > MAX_FOOTER_BYTES:
        raise DataError(
            f"{name}: is truncated or damaged: its footer should have {length} bytes, "
            f"the file has {size}. {WRITE_AGAIN}"
        )
    if length > len(tail):
        tail = _read(stream, size - length, size)
    if len(tail) < length:
        raise DataError(f"{name}: ended while it was read. {WRITE_AGAIN}")
    return tail[-length:]


def parse_footer(name: str, content: bytes) -> pq.ParquetFile:
    """Metadata and schema; forged lengths cannot claim more than the footer's own size."""
    try:
        return pq.ParquetFile(
            pa.BufferReader(content),
            thrift_string_size_limit=len(content),
            thrift_container_size_limit=len(content),
            **INT96,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{name}: the footer is damaged or of an unknown kind: {reason[:300]}. {WRITE_AGAIN}"
        ) from error


def stored_unit(type_: pa.DataType) -> str:
    """The unit of moments in a file of this type: Parquet has no seconds."""
    return "ms" if type_.unit == "s" else str(type_.unit)


def _moments(
    schema: pa.Schema, metadata: pq.FileMetaData, selection: Selection
) -> Iterator[tuple[str, tuple[int, int]]]:
    for each in schema:
        if not pa.types.is_timestamp(each.type) or not selection.may_carry(each.name):
            continue
        leaf = first_leaf(schema, each.name)
        groups = (metadata.row_group(i).column(leaf) for i in range(metadata.num_row_groups))
        known = [group.statistics for group in groups if group.physical_type == "INT64"]
        bounds = [(each.min_raw, each.max_raw) for each in known if each and each.has_min_max]
        if bounds:
            yield each.name, (min(low for low, _ in bounds), max(high for _, high in bounds))


def _contradictions(
    name: str, file: Input, metadata: pq.FileMetaData, keys: Keys
) -> Iterator[tuple[str, str]]:
    parquet = pq.ParquetFile(
        file.stream, metadata=metadata, pre_buffer=False, buffer_size=file.buffer_size, **INT96
    )
    for key in keys:
        if parquet.schema_arrow.names.count(key.name) != 1:
            continue  # no column, or two of that name, which is a problem of its own
        try:
            other = other_value(parquet, key)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            where = f"{name}, column {key.name!r}"
            raise DataError(f"{where}: the data are damaged. {WRITE_AGAIN}") from error
        if other is not None:
            yield key.name, other


def _check_case(name: str, absent: Sequence[str], found: Sequence[str]) -> None:
    """Raise DataError where a column that a file is without is there in other letters."""
    by_letters = {each.casefold(): each for each in found}
    same = ((each, by_letters.get(each.casefold())) for each in absent)
    lines = [
        f"{name}: has a column {other!r} where the table has {each!r}. Upper and lower case count: "
        "write the file again with the table's name."
        for each, other in same
        if other is not None
    ]
    if lines:
        raise DataError(lines)


def _index_columns(schema: pa.Schema) -> Iterator[str]:
    yield from (name for name in schema.names if _NAMELESS_INDEX.fullmatch(name))
    yield from (name for name in pandas_note(schema, "index_columns") if isinstance(name, str))


def _read(stream: BinaryIO, start: int, stop: int) -> bytes:
    stream.seek(start)
    parts = []
    while start < stop:  # a raw read may return less than was asked for
        part = stream.read(stop - start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _no_parquet(head: bytes, size: int) -> str:
    if size == 0:
        return f"is empty (0 bytes), not even a Parquet file of no rows. {WRITE_AGAIN}"
    if head == MAGIC:
        return f"is truncated: it begins as Parquet, but its footer is missing. {WRITE_AGAIN}"
    return "is not a Parquet file. Convert it, remove it, or name it in data.ignore."
