"""One type for what files write with several: it holds every value exactly, or there is none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import DataError
from gmm_dask.storage.input.columns.column_types import common_type, exact_cast, plain_type
from gmm_dask.storage.input.parquet.reader import read_table
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.storage.conftest import Write, problems_of

NONE = None
ITEMS = pa.struct([("a", pa.int8()), ("b", pa.string())])
WIDER_ITEMS = pa.struct([("b", pa.large_string()), ("a", pa.int64())])


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (pa.null(), pa.string(), pa.string()),
        (pa.null(), pa.null(), pa.null()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint32(), pa.int64(), pa.int64()),
        (pa.uint64(), pa.int64(), NONE),
        (pa.uint64(), pa.uint8(), pa.uint64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.uint32(), pa.float64(), pa.float64()),
        (pa.int64(), pa.float64(), NONE),
        (pa.bool_(), pa.int8(), NONE),
        (pa.string(), pa.int64(), NONE),
        (pa.string(), pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.int32()), pa.int64(), pa.int64()),
        (pa.string(), pa.binary(), NONE),
        (pa.binary(4), pa.binary(), pa.binary()),
        (pa.binary(4), pa.binary(8), pa.binary()),
        (pa.decimal128(5, 0), pa.decimal128(9, 0), pa.decimal128(9, 0)),
        (pa.decimal128(5, 2), pa.decimal128(9, 0), pa.decimal128(11, 2)),
        (pa.decimal128(38, 0), pa.decimal128(10, 5), pa.decimal256(43, 5)),
        (pa.decimal256(76, 0), pa.decimal128(10, 5), NONE),
        (pa.decimal128(5, 2), pa.int32(), pa.decimal128(12, 2)),
        (pa.decimal128(5, 2), pa.uint64(), pa.decimal128(22, 2)),
        (pa.decimal128(5, 2), pa.float64(), NONE),
        (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), NONE),
        (pa.date32(), pa.timestamp("us"), NONE),
        (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
        (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
        (pa.duration("s"), pa.duration("us"), pa.duration("us")),
        (pa.list_(pa.null()), pa.list_(pa.float32()), pa.list_(pa.float32())),
        (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
        (pa.list_(pa.float32(), 2), pa.list_(pa.float64(), 3), pa.list_(pa.float64())),
        (pa.list_(pa.int64()), pa.list_(pa.string()), NONE),
        (ITEMS, WIDER_ITEMS, pa.struct([("a", pa.int64()), ("b", pa.string())])),
        (ITEMS, pa.struct([("a", pa.int8())]), NONE),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int64()),
         pa.map_(pa.string(), pa.int64())),
        (ITEMS, pa.string(), NONE),
    ],
    ids=str,
)  # fmt: skip
def test_the_one_type_of_two(one: pa.DataType, two: pa.DataType, expected: Any) -> None:
    for types in ((one, two), (two, one)):
        found = common_type(types)
        if expected is None or not pa.types.is_struct(expected):
            assert found == expected
        else:  # the order of the fields is that of one of them
            assert {field.name: field.type for field in found} == {
                field.name: field.type for field in expected
            }


def test_the_order_of_files_does_not_matter() -> None:
    types = [pa.uint64(), pa.int64(), pa.decimal128(5, 1), pa.null(), pa.int8()]
    assert common_type(types) == common_type(reversed(types)) == pa.decimal128(21, 1)


integers = st.sampled_from(
    [pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()]
)
floats = st.sampled_from([pa.float32(), pa.float64()])
decimals = st.builds(
    lambda whole, scale: pa.decimal128(whole + scale, scale), st.integers(1, 20), st.integers(0, 9)
)
units = st.sampled_from(["s", "ms", "us", "ns"])
times = st.builds(pa.timestamp, units, st.just("UTC")) | st.builds(pa.duration, units)
plain_types = integers | floats | decimals | times | st.just(pa.null()) | st.just(pa.bool_())
nested = st.one_of(
    plain_types,
    plain_types.map(pa.list_),
    plain_types.map(lambda type_: pa.struct([("a", type_), ("b", pa.string())])),
)


def values_of(type_: pa.DataType) -> st.SearchStrategy[Any]:
    """Values that the type holds, as Arrow takes them."""
    if pa.types.is_list(type_):
        return st.lists(values_of(type_.value_type), max_size=3)
    if pa.types.is_struct(type_):
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in type_})
    if pa.types.is_decimal(type_):
        return st.decimals(
            -(10 ** (type_.precision - type_.scale)) + 1,
            10 ** (type_.precision - type_.scale) - 1,
            places=type_.scale,
        )
    if pa.types.is_integer(type_):
        info = np.iinfo(type_.to_pandas_dtype())
        return st.integers(int(info.min), int(info.max))
    if pa.types.is_floating(type_):
        return st.floats(width=type_.bit_width, allow_nan=False)
    if pa.types.is_boolean(type_):
        return st.booleans()
    if pa.types.is_string(type_):
        return st.text(max_size=3)
    if pa.types.is_null(type_):
        return st.none()
    return st.integers(-(10**9), 10**9)  # moments, of any unit, within the range of nanoseconds


def as_python(array: pa.Array, type_: pa.DataType) -> list[Any]:
    """Values to compare, moments as exact counts of nanoseconds."""
    if pa.types.is_timestamp(type_) or pa.types.is_duration(type_):
        factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[type_.unit]
        counts = array.cast(pa.int64()).to_pylist()
        return [None if each is None else each * factor for each in counts]
    if pa.types.is_list(type_):
        inner = as_python(array.flatten(), type_.value_type)
        lengths = pc.list_value_length(array).to_pylist()
        rest = iter(inner)
        return [
            None if length is None else [next(rest) for _ in range(length)] for length in lengths
        ]
    if pa.types.is_struct(type_):
        columns = [as_python(array.field(i), type_.field(i).type) for i in range(2)]
        rows = zip(array.is_valid().to_pylist(), *columns, strict=True)
        return [tuple(row) if is_there else None for is_there, *row in rows]
    return list(array.to_pylist())


@given(data=st.data())
def test_the_one_type_holds_every_value_exactly(data: st.DataObject) -> None:
    types = data.draw(st.lists(nested, min_size=2, max_size=3))
    shared = common_type(types)
    if shared is None:
        assert len(set(types)) > 1
        return
    for type_ in types:
        values = data.draw(st.lists(st.none() | values_of(type_), max_size=4))
        array = pa.array(values, type_)
        cast = exact_cast(array, shared)
        assert cast.type == shared
        assert as_python(cast, shared) == as_python(array, type_)


# Files


def carried(path: Path, name: str = "id") -> tuple[set[pa.DataType], list[Any]]:
    """Types that the parts of the labels would have, and the values."""
    plan = plan_dataset(path, features=["x"], id_columns=[name])
    tables = [read_table(source, (name,)) for source in sources(plan)]
    types = {table.schema.field(name).type for table in tables}
    return types, [each for table in tables for each in table.column(name).to_pylist()]


def moments(unit: str, zone: str | None = None) -> pa.Array:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return pa.array([1_700_000_000 * factor, None], pa.timestamp(unit, zone))


WIDE: dict[str, tuple[list[Callable[[], pa.Array]], pa.DataType]] = {
    "null and string": ([lambda: pa.nulls(2), lambda: pa.array(["a", "b"])], pa.string()),
    "string and null": ([lambda: pa.array(["a", None]), lambda: pa.nulls(1)], pa.string()),
    "integers": (
        [lambda: pa.array([1, 2], pa.int32()), lambda: pa.array([2**40], pa.int64())],
        pa.int64(),
    ),
    "signed and unsigned": (
        [lambda: pa.array([-1], pa.int8()), lambda: pa.array([2**32 - 1], pa.uint32())],
        pa.int64(),
    ),
    "dictionary and plain": (
        [lambda: pa.array(["a", "b", "a"]).dictionary_encode(), lambda: pa.array(["c"])],
        pa.string(),
    ),
    "dictionaries of integers": (
        [
            lambda: pa.array([7, None, 7], pa.int32()).dictionary_encode(),
            lambda: pa.array([2**40], pa.int64()),
        ],
        pa.int64(),
    ),
    "large and plain strings": (
        [lambda: pa.array(["a"], pa.large_string()), lambda: pa.array(["b"], pa.string_view())],
        pa.string(),
    ),
    "floats": (
        [lambda: pa.array([0.1], pa.float32()), lambda: pa.array([0.1], pa.float64())],
        pa.float64(),
    ),
    "decimals of Snowflake": (
        [
            lambda: pa.array([1, 2], pa.int8()),
            lambda: pa.array([Decimal("12345.67")], pa.decimal128(7, 2)),
            lambda: pa.array([Decimal(10) ** 30], pa.decimal128(38, 0)),
        ],
        pa.decimal256(40, 2),
    ),
    "units": ([lambda: moments("ms"), lambda: moments("us"), lambda: moments("ns")],
              pa.timestamp("ns")),
    "zones": (
        [lambda: moments("us", "UTC"), lambda: moments("us", "Europe/Berlin")],
        pa.timestamp("us", "UTC"),
    ),
    "lists": (
        [lambda: pa.array([[], []], pa.list_(pa.null())), lambda: pa.array([[1.5]])],
        pa.list_(pa.float64()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(WIDE))
def test_labels_have_one_type_in_every_part(write: Write, data: Path, case: str) -> None:
    arrays, expected = [array() for array in WIDE[case][0]], WIDE[case][1]
    for i, array in enumerate(arrays):
        write(f"{i}.parquet", {"x": np.arange(float(len(array))), "id": array})
    write("z.parquet", pa.table({"x": pa.array([], pa.float64()), "id": pa.array([], pa.bool_())}))
    types, values = carried(data)
    assert types == {expected}
    if pa.types.is_timestamp(expected):
        arrays = [array.cast(pa.timestamp("ns", array.type.tz)) for array in arrays]
    assert values == [each for array in arrays for each in array.to_pylist()]


def test_what_no_type_holds_names_both_files_and_the_remedy(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0], "id": pa.array([1], pa.int32())})
    write("b.parquet", {"x": [1.0], "id": pa.array([1], pa.int64())})
    write("c.parquet", {"x": [1.0], "id": ["one"]})
    (line,) = problems_of(data, features=["x"], id_columns=["id"])
    assert line.startswith("c.parquet, column 'id': is string, but int64 in b.parquet")
    assert "one type in all files, or leave it out of data.id_columns" in line
    assert plan_dataset(data, features=["x"]).n_rows == 3


def test_moments_beyond_a_finer_unit_are_found_before_any_work(write: Write, data: Path) -> None:
    far = pa.array([dt.datetime(9999, 12, 31)], pa.timestamp("us"))
    write("a.parquet", {"x": [1.0], "id": far})
    assert carried(data) == ({pa.timestamp("us")}, far.to_pylist())
    write("b.parquet", {"x": [1.0], "id": pa.array([1], pa.timestamp("ns"))})
    (line,) = problems_of(data, features=["x"], id_columns=["id"])
    assert line.startswith("a.parquet, column 'id': holds moments that timestamp[ns]")
    assert plan_dataset(data, features=["x"]).n_rows == 2


def test_moments_beyond_a_finer_unit_are_found_without_statistics(write: Write, data: Path) -> None:
    far = pa.array([dt.datetime(9999, 12, 31)], pa.timestamp("us"))
    write("a.parquet", {"x": [1.0], "id": far}, write_statistics=False)
    write("b.parquet", {"x": [1.0], "id": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(DataError, match=r"a\.parquet, column 'id': .*no room for"):
        carried(data)


def test_a_plan_says_which_columns_are_wider(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0], "id": pa.array([1], pa.int8()), "s": ["a"]})
    write("b.parquet", {"x": [1.0], "id": pa.array([1], pa.int16()), "s": ["a"]})
    plan = plan_dataset(data, features=["x"], keep="all")
    assert plan.widened == (("id", pa.int16()),)
    assert plan.to_dict()["widened"] == {"id": "int16"}
    assert dict(plan.columns) == {"x": "double", "id": "int16", "s": "string"}


def test_a_type_that_labels_do_not_know_stays_what_it_is() -> None:
    assert plain_type(pa.uuid()) == pa.uuid()
    assert common_type([pa.uuid(), pa.null()]) == pa.uuid()
    assert common_type([pa.uuid(), pa.binary(16)]) is None
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": exact_cast(pa.nulls(2), pa.uuid())}), sink)


# Time stamps of 96 bits, which Arrow takes for nanoseconds whatever the year


def old_moments(write: Write, name: str, moments: list[Any], unit: str = "us") -> None:
    array = pa.array(moments, pa.timestamp(unit))
    columns = {"x": np.arange(float(len(array))), "id": array, "in": [[each] for each in array]}
    write(name, columns, use_deprecated_int96_timestamps=True, row_group_size=2)


def test_old_time_stamps_of_any_year_come_through(write: Write, data: Path) -> None:
    moments = [dt.datetime(9999, 12, 31), None, dt.datetime(1, 1, 1), dt.datetime(2024, 5, 1, 12)]
    old_moments(write, "a.parquet", moments)
    assert carried(data) == ({pa.timestamp("us")}, moments)
    assert carried(data, "in")[1] == [[each] for each in moments]


def test_old_time_stamps_are_not_cut(write: Write, data: Path) -> None:
    old_moments(write, "a.parquet", [1000, 2000, 3001], unit="ns")
    for name in ("id", "in"):
        with pytest.raises(DataError, match=f"a.parquet, column '{name}': .*96 bits"):
            carried(data, name)
    assert plan_dataset(data, features=["x"]).n_rows == 3


def test_old_time_stamps_are_of_one_type_with_others(write: Write, data: Path) -> None:
    moment = dt.datetime(2024, 5, 1, 12)
    old_moments(write, "a.parquet", [moment])
    write("b.parquet", {"x": [1.0], "id": pa.array([moment], pa.timestamp("ms"))})
    assert carried(data) == ({pa.timestamp("us")}, [moment, moment])
