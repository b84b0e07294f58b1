"""Row groups as a footer describes them: their rows, where they lie, what their values are like."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, pairwise
from typing import Any, NamedTuple

import pyarrow as pa

from gmm_dask.errors import DataError
from gmm_dask.kinds import is_exact
from gmm_dask.storage.input.columns.selection import (
    Length,
    Selection,
    is_list,
    types_of,
    value_type,
)
from gmm_dask.storage.input.inputs import MAX_ALIKE
from gmm_dask.storage.input.parquet.thrift import (
    Fields,
    ThriftError,
    binary,
    integer,
    structure,
    structures,
    walk,
)

ENCRYPTED_FILE = "is encrypted. Decrypt it; there is no setting for keys."
WRITE_AGAIN = "Write the file again, or remove it from the dataset."
KINDS = ("null", "inexact", "infinite", "negative")
CODECS = ("uncompressed", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw")

# Field ids of parquet.thrift, by the structure they are in.
FILE_ROWS, FILE_ROW_GROUPS, FILE_ENCRYPTION = 3, 4, 8
GROUP_COLUMNS, GROUP_ROWS = 1, 3
CHUNK_PATH, CHUNK_METADATA, CHUNK_ENCRYPTION = 1, 3, 8
COLUMN_TYPE, COLUMN_CODEC, COLUMN_VALUES, COLUMN_SIZE = 1, 4, 5, 7
COLUMN_PAGES, COLUMN_DICTIONARY, COLUMN_STATISTICS = 9, 11, 12
STATISTICS_OLD_MAX, STATISTICS_OLD_MIN, STATISTICS_NULLS = 1, 2, 3
STATISTICS_MAX, STATISTICS_MIN = 5, 6
INT32, INT64, FLOAT, DOUBLE = 1, 2, 4, 5  # physical types
BOUND_BYTES = {INT32: 4, INT64: 8, FLOAT: 4, DOUBLE: 8}


_Extent = tuple[int, int, int, int]  # first byte, byte after the last, row group, leaf


@dataclass(frozen=True)
class Oddity:
    """Values of one column of one row group, seen in the statistics, that cannot be used as is.

    Parameters
    ----------
    kind : one of KINDS
    row_group : int
    column : str
    what : str
        How many, or which value.
    """

    kind: str
    row_group: int
    column: str
    what: str


class RowGroups(NamedTuple):
    """What a footer says of its row groups.

    Parameters
    ----------
    rows : tuple of int
        Number of rows of each row group.
    oddities : tuple of Oddity
        Oddities that matter, of the columns that may be read.
    lengths : mapping of str to Length
        Length of the lists of each column of lists of numbers.
    """

    rows: tuple[int, ...]
    oddities: tuple[Oddity, ...]
    lengths: Mapping[str, Length]


def check_row_groups(
    name: str, content: bytes, end: int, schema: pa.Schema, selection: Selection
) -> RowGroups:
    """What the row groups hold, as far as columns go that may be read.

    Parameters
    ----------
    name : str
        Name of the file.
    content : bytes
        The footer.
    end : int
        Where the footer starts, and the data must have ended.

    Raises
    ------
    DataError
        Column chunks that cannot be read, all of them.
    ThriftError
        The footer contradicts itself.
    """
    leaves = tuple(_leaves(schema, selection))
    n_columns = sum(n_leaves(field.type) for field in schema)
    row_groups: list[int] = []
    oddities: list[Oddity] = []
    problems: list[str] = []
    extents: list[_Extent] = []
    lists: dict[str, list[_Lists]] = {leaf.column: [] for leaf in leaves if leaf.is_list}
    promised = 0
    for field, value in walk(content, lazily=FILE_ROW_GROUPS):
        if field == FILE_ROWS:
            promised = value
        elif field == FILE_ENCRYPTION:
            raise DataError(f"{name}: {ENCRYPTED_FILE}")
        elif field == FILE_ROW_GROUPS:
            chunks, n_rows = _group(value, n_columns)
            group = len(row_groups)
            row_groups.append(n_rows)
            extents += _extents(chunks, group) if n_rows else ()
            for leaf in leaves:
                chunk = chunks[leaf.index]
                fault = _fault(chunk, n_rows, leaf, end)
                if fault:
                    where = f"{name}, row group {group}, column {leaf.column!r}"
                    problems.append(f"{where}: {fault} {WRITE_AGAIN}")
                    continue
                if leaf.is_list and n_rows:
                    lists[leaf.column].append(_Lists.of(chunk[CHUNK_METADATA], n_rows))
                if leaf.minded:
                    oddities += _oddities(chunk[CHUNK_METADATA], leaf, group)
    if promised != sum(row_groups):
        raise ThriftError(f"it promises {promised} rows, its row groups have {sum(row_groups)}")
    problems = problems or _overlaps(name, extents, schema, {leaf.index for leaf in leaves})
    if problems:
        raise DataError(problems)
    types = {field.name: field.type for field in schema}
    lengths = {column: _length(types[column], found) for column, found in lists.items()}
    return RowGroups(tuple(row_groups), tuple(oddities), lengths)


def _group(value: Any, n_columns: int) -> tuple[list[Fields], int]:
    """The column chunks of a row group, and its rows."""
    if type(value) is not dict:
        raise ThriftError("a row group is not a structure")
    chunks, n_rows = structures(value, GROUP_COLUMNS), integer(value, GROUP_ROWS)
    if len(chunks) != n_columns or n_rows < 0:
        raise ThriftError("its row groups do not fit its schema")
    return chunks, n_rows


class _Lists(NamedTuple):
    """The lists of a column chunk: rows, elements (one for a null list), whether any is null."""

    n_rows: int
    n_values: int
    may_be_null: bool

    @classmethod
    def of(cls, metadata: Fields, n_rows: int) -> _Lists:
        statistics = structure(metadata, COLUMN_STATISTICS)
        none = STATISTICS_NULLS in statistics and not integer(statistics, STATISTICS_NULLS)
        return cls(n_rows, integer(metadata, COLUMN_VALUES), not none)


def _length(type_: pa.DataType, lists: Sequence[_Lists]) -> Length:
    """Length of a column's lists; where the type leaves it open, by row groups without nulls."""
    if pa.types.is_fixed_size_list(type_):
        return Length(int(type_.list_size), True)
    if not pa.types.is_nested(type_):
        return Length(int(type_.shape[0]), True)  # a tensor
    whole = [each for each in lists if not each.may_be_null]
    lengths = {divmod(each.n_values, each.n_rows) for each in whole or lists}
    length, rest = lengths.pop() if len(lengths) == 1 else (0, 0)
    return Length(length if length and not rest else None, bool(whole))


@dataclass(frozen=True)
class _Leaf:
    """The first leaf of a top-level column, and what to look for in it."""

    column: str
    index: int
    is_flat: bool
    is_list: bool
    is_null: bool
    physical: int | None  # type of the values in the file, where there is but one
    decode: Callable[[bytes], float] | None  # of a bound in the statistics
    is_signed: bool
    minded: frozenset[str]


def _leaves(schema: pa.Schema, selection: Selection) -> Iterator[_Leaf]:
    """The leaves of the columns that may be read."""
    index = 0
    for name, type_ in types_of(schema):
        if selection.may_read(name, type_):
            value = value_type(type_)
            kinds = KINDS if selection.is_number(value) else ()
            yield _Leaf(
                name,
                index,
                value == type_ and not pa.types.is_nested(type_),
                is_list(type_) and bool(kinds),
                pa.types.is_null(type_),
                _physical(value),
                _bound_decoder(value),
                not pa.types.is_unsigned_integer(value),
                frozenset(kind for kind in kinds if selection.minds(kind, name)),
            )
        index += n_leaves(type_)


def _physical(type_: pa.DataType) -> int | None:
    if pa.types.is_integer(type_):
        return INT64 if type_.bit_width == 64 else INT32
    return {pa.float32(): FLOAT, pa.float64(): DOUBLE}.get(type_)


def _bound_decoder(type_: pa.DataType) -> Callable[[bytes], float] | None:
    if pa.types.is_unsigned_integer(type_):
        return partial(int.from_bytes, byteorder="little")
    if pa.types.is_integer(type_):
        return partial(int.from_bytes, byteorder="little", signed=True)
    return {pa.float32(): _float, pa.float64(): _double}.get(type_)


def _float(bound: bytes) -> float:
    return float(struct.unpack("<f", bound)[0])


def _double(bound: bytes) -> float:
    return float(struct.unpack("<d", bound)[0])


def n_leaves(type_: pa.DataType) -> int:
    """Leaf columns that Parquet stores for a column of this type."""
    if isinstance(type_, pa.BaseExtensionType):
        return n_leaves(type_.storage_type)
    if not pa.types.is_nested(type_):
        return 1
    return sum(n_leaves(type_.field(i).type) for i in range(type_.num_fields))


def first_leaf(schema: pa.Schema, name: str) -> int:
    """Index of the first leaf of a column."""
    return sum(n_leaves(field.type) for field in islice(schema, schema.get_field_index(name)))


def _fault(chunk: Fields, n_rows: int, leaf: _Leaf, end: int) -> str | None:
    """Why the byte range of a column chunk is impossible, in words; None where it is possible."""
    metadata = structure(chunk, CHUNK_METADATA)
    if CHUNK_ENCRYPTION in chunk:
        return ENCRYPTED_FILE
    if binary(chunk, CHUNK_PATH):
        return "lies in another file; a summary file is no data."
    if leaf.physical not in (None, integer(metadata, COLUMN_TYPE)):
        return "is of another type than the schema says; the footer is damaged."
    first, size = _first_page(metadata), integer(metadata, COLUMN_SIZE)
    if n_rows and (first < 4 or size < 0 or first + size > end):
        return "lies outside of the file, which is truncated or damaged."
    if leaf.is_flat and integer(metadata, COLUMN_VALUES) != n_rows:
        return f"holds {metadata[COLUMN_VALUES]} values for {n_rows} rows."
    codec = integer(metadata, COLUMN_CODEC)
    if not _can_decompress(codec):
        name = dict(enumerate(CODECS)).get(codec, f"the unknown codec {codec}")
        return f"is compressed with {name}, which cannot be read here."
    return None


def _first_page(metadata: Fields) -> int:
    first = integer(metadata, COLUMN_PAGES)
    if COLUMN_DICTIONARY in metadata and 0 < integer(metadata, COLUMN_DICTIONARY) < first:
        return integer(metadata, COLUMN_DICTIONARY)
    return first


def _extents(chunks: Sequence[Fields], group: int) -> Iterator[_Extent]:
    """Where the column chunks of a row group lie, as far as they say so."""
    for index, chunk in enumerate(chunks):
        with suppress(ThriftError):  # of a column that is not read
            metadata = structure(chunk, CHUNK_METADATA)
            first, size = _first_page(metadata), integer(metadata, COLUMN_SIZE)
            if size > 0:
                yield first, first + size, group, index


def _overlaps(
    name: str, extents: Sequence[_Extent], schema: pa.Schema, read: Collection[int]
) -> list[str]:
    """Column chunks that lie where others do: an offset is wrong, and pages of others are sound."""
    columns = [field.name for field in schema for _ in range(n_leaves(field.type))]
    problems = []
    for one, two in pairwise(sorted(extents)):
        if two[0] < one[1] and not {one[3], two[3]}.isdisjoint(read):
            here, there = (
                f"row group {each[2]}, column {columns[each[3]]!r}" for each in (one, two)
            )
            problems.append(
                f"{name}, {here}: lies where {there} lies; the footer is damaged. {WRITE_AGAIN}"
            )
    return problems[:MAX_ALIKE]


@cache
def _can_decompress(codec: int) -> bool:
    if not 0 <= codec < len(CODECS) or CODECS[codec] == "lzo":
        return False
    return codec == 0 or bool(pa.Codec.is_available(CODECS[codec]))


def _oddities(metadata: Fields, leaf: _Leaf, group: int) -> list[Oddity]:
    """The oddities in the statistics of a column chunk that are a problem for the run."""
    return [
        Oddity(kind, group, leaf.column, what)
        for kind, what in _all_oddities(metadata, leaf)
        if kind in leaf.minded
    ]


def _all_oddities(metadata: Fields, leaf: _Leaf) -> Iterator[tuple[str, str]]:
    """Kind and extent of every oddity that the statistics of a column chunk show."""
    statistics = structure(metadata, COLUMN_STATISTICS)
    nulls = integer(statistics, STATISTICS_NULLS) if STATISTICS_NULLS in statistics else 0
    if leaf.is_null:
        nulls = integer(metadata, COLUMN_VALUES)
    if nulls:
        yield "null", f"{nulls} nulls"
    low, high = _bounds(statistics, metadata, leaf)
    if low is None or high is None:
        return
    if math.isinf(low) or math.isinf(high):
        yield "infinite", "infinite values"
    elif rounded := [b for b in (low, high) if isinstance(b, int) and not is_exact(b)]:
        yield "inexact", f"integers up to {max(rounded, key=abs)}, beyond 2^53"
    if low < 0:
        yield "negative", f"values down to {low}"


def _bounds(statistics: Fields, metadata: Fields, leaf: _Leaf) -> tuple[float | None, float | None]:
    """Least and greatest value; the older pair of fields is right for signed numbers only."""
    if leaf.decode is None:
        return None, None
    high, low = binary(statistics, STATISTICS_MAX), binary(statistics, STATISTICS_MIN)
    if leaf.is_signed and (low is None or high is None):
        high, low = binary(statistics, STATISTICS_OLD_MAX), binary(statistics, STATISTICS_OLD_MIN)
    if low is None or high is None:
        return None, None
    if len(low) != len(high) or len(low) != BOUND_BYTES.get(integer(metadata, COLUMN_TYPE)):
        raise ThriftError("its statistics are not of the type of their column")
    return leaf.decode(low), leaf.decode(high)
