"""Time stamps of 96 bits, as Spark, Hive and Impala write them: any nanosecond of any year.

Arrow takes them for nanoseconds in 64 bits, where the year 9999 silently becomes 1816. They are
read as microseconds, which hold every year, and moments of less than one are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.storage.input.columns.arrays import to_numpy
from gmm_dask.storage.input.parquet.row_groups import n_leaves

INT96: dict[str, Any] = {"coerce_int96_timestamp_unit": "us"}  # how each file is opened
BATCH_ROWS = 1 << 16


def int96_columns(metadata: pq.FileMetaData, schema: pa.Schema) -> frozenset[str]:
    """Columns with such time stamps, or with some inside."""
    owners = (field.name for field in schema for _ in range(n_leaves(field.type)))
    leaves = (metadata.schema.column(i) for i in range(metadata.num_columns))
    return frozenset(
        name for name, leaf in zip(owners, leaves, strict=True) if leaf.physical_type == "INT96"
    )


def is_cut(
    microseconds: pq.ParquetFile, nanoseconds: pq.ParquetFile, groups: Sequence[int], column: str
) -> bool:
    """Whether a moment of a column is no whole microsecond.

    Parameters
    ----------
    microseconds, nanoseconds : ParquetFile
        The same file, opened with either unit. Nanoseconds of other years wrap round, which does
        not matter to the comparison.
    """
    how: dict[str, Any] = {
        "row_groups": list(groups),
        "columns": [column],
        "use_threads": False,
    }
    for coarse, fine in zip(
        microseconds.iter_batches(BATCH_ROWS, **how),
        nanoseconds.iter_batches(BATCH_ROWS, **how),
        strict=True,
    ):
        pairs = zip(_moments(coarse.column(0)), _moments(fine.column(0)), strict=True)
        if any(not np.array_equal(us * 1000, ns) for us, ns in pairs):
            return True
    return False


def _moments(array: pa.Array) -> Iterator[np.ndarray[Any, Any]]:
    """The counts of units of all time stamps in an array, without missing values."""
    type_ = array.type
    if pa.types.is_timestamp(type_):
        yield to_numpy(array.drop_null().cast(pa.int64()))
    elif pa.types.is_struct(type_):
        for part in array.flatten():
            yield from _moments(part)
    elif pa.types.is_map(type_):
        yield from _moments(array.keys)
        yield from _moments(array.items)
    elif pa.types.is_nested(type_):
        yield from _moments(array.flatten())
