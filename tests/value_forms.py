"""Columns of values of every kind, in every form that rows come in."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Rule = Literal["exact", "missing", "refused"]


A = [0.0, 1.0, 2.0, 5.0, 7.0, 3.0]  # the column beside the one that is looked at


DAY = datetime.datetime(2026, 11, 24, 12)


@dataclass(frozen=True)
class Kind:
    """Six values of one kind, and what a form needs to hold them.

    Parameters
    ----------
    rule : Rule
    values : list
        Python objects; of kinds that are refused, only some need be of the kind.
    arrow : Arrow type or None
        None where Arrow has no such values.
    numpy : str or None
        The dtype of NumPy and pandas, where there is one beside object.
    nullable : str or None
        The dtype of pandas that has a missing value.
    told : str
        What the refusal says beside the name of the column.
    """

    rule: Rule
    values: list[Any]
    arrow: pa.DataType | None = None
    numpy: str | None = None
    nullable: str | None = None
    told: str = "not a number. "


F64, I64, U64 = pa.float64(), pa.int64(), pa.uint64()

NUMBERS = [1.5, -2.25, 0.0, 3.0, 12.5, -7.0]


BIG = [2**53, 2**60, -(2**62), 2**53 + 2, 0, -(2**63)]


FLOATS = [0.1, 1e9, -1e-300, 3.0, 2.5, 1 / 3]


TIMES = [pd.NaT, pd.NaT, pd.Timestamp(DAY), pd.NaT, pd.NaT, pd.NaT]


ROUNDED = "integers up to {}, beyond 2^53. float64 would round them: subtract an offset"


KINDS = {
    "float64": Kind("exact", FLOATS, F64, "float64", "Float64"),
    "float32": Kind("exact", NUMBERS, pa.float32(), "float32", "Float32"),
    "float16": Kind("exact", NUMBERS, pa.float16(), "float16"),
    "small integers": Kind("exact", [1, -2, 3, 0, 127, -128], pa.int8(), "int8", "Int8"),
    "unsigned integers": Kind("exact", [1, 2, 3, 0, 2**32 - 1, 5], pa.uint32(), "uint32", "UInt32"),
    "large integers": Kind("exact", BIG, I64, "int64", "Int64"),
    "large unsigned": Kind("exact", [2**63, 2**64 - 2048, 1, 2, 0, 5], U64, "uint64", "UInt64"),
    "large integers that float64 would round": Kind(
        "refused", [1, 2, 3, 2**53 + 1, 5, 6], I64, "int64", "Int64", ROUNDED.format(2**53 + 1)
    ),
    "large unsigned that float64 would round": Kind(
        "refused", [1, 2, 3, 2**64 - 1, 5, 6], U64, "uint64", "UInt64", ROUNDED.format(2**64 - 1)
    ),
    "None": Kind("missing", [1.0, None, 3.0, None, 5.0, 2.0], F64, None, "Float64"),
    "None among integers": Kind("missing", [1, None, 3, None, 5, 2], I64, None, "Int64"),
    "NaN": Kind("missing", [1.0, np.nan, 3.0, 4.0, np.nan, 2.0], F64, "float64", "Float64"),
    "NA": Kind("missing", [pd.NA, 1, 3, 5, pd.NA, 2], None, None, "Int64"),
    "infinity": Kind(
        "refused", [1.0, np.inf, 3.0, 4.0, 5.0, -np.inf], F64, "float64", "Float64", "infinit"
    ),
    "booleans": Kind("refused", [True, False] * 3, pa.bool_(), "bool", "boolean"),
    "booleans with a gap": Kind("refused", [True, None, False] * 2, pa.bool_(), None, "boolean"),
    "decimals": Kind("refused", [Decimal(i) / 4 for i in range(6)], pa.decimal128(9, 2)),
    "times": Kind("refused", [DAY] * 6, pa.timestamp("us"), "datetime64[ns]"),
    "dates": Kind("refused", [DAY.date()] * 6, pa.date32()),
    "NaT": Kind("refused", TIMES, None, "datetime64[ns]"),
    "durations": Kind("refused", [datetime.timedelta(1)] * 6, pa.duration("us"), "timedelta64[ns]"),
    "periods": Kind("refused", [pd.Period("2026-11", "M")] * 6, None, None, "period[M]"),
    "text": Kind("refused", ["a", "b", "c", "d", "e", "f"], pa.string(), "U1", "string"),
    "numbers as text": Kind("refused", ["1", "2", "3.5"] * 2, pa.string(), "U3", "string"),
    "categories": Kind(
        "refused", ["a", "b"] * 3, pa.dictionary(pa.int8(), pa.string()), None, "category"
    ),
    "complex numbers": Kind("refused", [1j, 2.0, 3.0, 4.0, 5.0, 6.0], None, "complex128"),
    "structures": Kind("refused", [{"k": 1.0}] * 6, pa.struct([("k", F64)])),
    "lists of several lengths": Kind("refused", [[1.0], [1.0, 2.0]] * 3, pa.list_(F64), told=""),
    "numbers beside text": Kind("refused", [1.0, 2, "3", 4.0, 5.0, 6.0]),
    "numbers beside dates": Kind("refused", [1.0, 2, pd.NaT, 4.0, 5.0, 6.0]),
    "numbers beside booleans": Kind("refused", [1.0, 2, True, 4.0, 5.0, 6.0]),
    "integers beside floats": Kind("exact", [1, 2.5, 2**60, np.float32(4), np.int8(5), 6.0]),
}


def of_objects(values: list[Any]) -> np.ndarray:
    return np.fromiter(values, dtype=object, count=len(values))


def object_array(kind: Kind) -> np.ndarray:
    return np.column_stack([of_objects(A), of_objects(kind.values)])


def numpy_array(kind: Kind) -> np.ndarray | None:
    """One dtype for both columns."""
    if kind.numpy is None:
        return None
    return np.column_stack([beside(kind.numpy, kind.values), numpy_column(kind.values, kind.numpy)])


def beside(dtype: Any, values: list[Any]) -> np.ndarray:
    """Another column of the dtype, sound where that can be."""
    if np.dtype(dtype).kind in "iuf":
        return np.array(A).astype(dtype)
    return numpy_column(values[::-1], dtype)


def numpy_column(values: list[Any], dtype: Any) -> np.ndarray:
    plain = [np.datetime64("NaT") if value is pd.NaT else value for value in values]
    return of_objects(plain).astype(dtype)


def masked_array(kind: Kind) -> np.ma.MaskedArray | None:
    """A value that is absent is masked, over some other of its kind."""
    present = [value for value in kind.values if value is not None and value is not pd.NA]
    absent = [value is None or value is pd.NA for value in kind.values]
    filled = [
        present[0] if gone else value for gone, value in zip(absent, kind.values, strict=True)
    ]
    if kind.numpy is None and not any(absent):
        return np.ma.masked_array(object_array(kind), False)
    dtype = kind.numpy or np.asarray(filled).dtype
    columns = [beside(dtype, filled), numpy_column(filled, dtype)]
    return np.ma.masked_array(
        np.column_stack(columns), np.column_stack([np.zeros(6, bool), absent])
    )


def nested_lists(kind: Kind) -> list[list[Any]]:
    return [[a, value] for a, value in zip(A, kind.values, strict=True)]


def pandas_of(column: Any) -> pd.DataFrame | None:
    return None if column is None else pd.DataFrame({"a": A, "b": column})


def pandas_numpy(kind: Kind) -> pd.DataFrame | None:
    if kind.numpy is None or kind.numpy.startswith("U"):
        return None
    return pandas_of(numpy_column(kind.values, kind.numpy))


def pandas_nullable(kind: Kind) -> pd.DataFrame | None:
    return kind.nullable and pandas_of(pd.array(kind.values, dtype=kind.nullable))


def pandas_arrow(kind: Kind) -> pd.DataFrame | None:
    column = arrow_column(kind)
    return None if column is None else pandas_of(pd.arrays.ArrowExtensionArray(column))


def pandas_objects(kind: Kind) -> pd.DataFrame:
    return pandas_of(pd.Series(of_objects(kind.values), dtype=object))


def arrow_column(kind: Kind) -> pa.Array | None:
    if kind.arrow is None:
        return None
    if kind.arrow == pa.float16():
        return pa.array(np.array(kind.values, np.float16))
    return pa.array(kind.values, kind.arrow, from_pandas=False)


def arrow_table(kind: Kind) -> pa.Table | None:
    column = arrow_column(kind)
    return None if column is None else pa.table({"a": A, "b": column})


def record_batch(kind: Kind) -> pa.RecordBatch | None:
    table = arrow_table(kind)
    return table and table.to_batches()[0]


def polars_frame(kind: Kind) -> pl.DataFrame | None:
    table = arrow_table(kind)
    return None if table is None else pl.from_arrow(table)


def dask_array(kind: Kind) -> da.Array | None:
    array = numpy_array(kind)
    return None if array is None else da.from_array(array, chunks=(4, 1))


def dask_objects(kind: Kind) -> da.Array:
    return da.from_array(object_array(kind), chunks=(4, 2))


def dask_masked(kind: Kind) -> da.Array:
    return da.from_array(masked_array(kind), chunks=(4, 2))


def dask_of(frame: pd.DataFrame | None) -> dd.DataFrame | None:
    """Each partition as it is: Dask would make text of objects."""
    if frame is None:
        return None
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(lambda at: frame.iloc[at], [slice(0, 4), slice(4, 6)], meta=frame[:0])


def parquet(kind: Kind, folder: Path) -> Path | None:
    table = arrow_table(kind)
    if kind.values == KINDS["periods"].values:
        table = pa.Table.from_pandas(pandas_nullable(kind))
    if table is None:
        return None
    pq.write_table(table, folder / "a.parquet")
    return folder


FORMS: dict[str, Callable[[Kind], Any]] = {
    "NumPy array": numpy_array,
    "masked array": masked_array,
    "object array": object_array,
    "nested lists": nested_lists,
    "pandas, NumPy's types": pandas_numpy,
    "pandas, nullable": pandas_nullable,
    "pandas on Arrow": pandas_arrow,
    "pandas, objects": pandas_objects,
    "Arrow table": arrow_table,
    "Arrow batch": record_batch,
    "Polars": polars_frame,
    "Dask array": dask_array,
    "Dask array of objects": dask_objects,
    "Dask array, masked": dask_masked,
    "Dask DataFrame, NumPy's types": lambda kind: dask_of(pandas_numpy(kind)),
    "Dask DataFrame, nullable": lambda kind: dask_of(pandas_nullable(kind)),
    "Dask DataFrame on Arrow": lambda kind: dask_of(pandas_arrow(kind)),
    "Dask DataFrame, objects": lambda kind: dask_of(pandas_objects(kind)),
}
