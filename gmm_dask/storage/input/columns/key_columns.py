"""Columns that are also keys of folders: one column where their values are equal, else an error."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.storage.input.columns.column_types import exact_cast, plain_type
from gmm_dask.storage.input.listing import Key
from gmm_dask.storage.input.listing.keys import key_value
from gmm_dask.storage.input.parquet.row_groups import first_leaf

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
