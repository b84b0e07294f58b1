"""Hive keys that are also columns of the files: one column where equal, an error where not."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.storage.input.parquet.footers import FIRST_READ
from gmm_dask.storage.input.parquet.reader import read_features, read_table
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.storage.conftest import Write, problems_of

UTC = dt.UTC
NOON = dt.datetime(2024, 5, 1, 12, 0, 0, 250)
EQUAL: dict[str, tuple[str, pa.Array]] = {
    "integer": ("2024", pa.array([2024, 2024])),
    "narrow integer": ("7", pa.array([7], pa.int8())),
    "unsigned integer": (str(2**64 - 1), pa.array([2**64 - 1], pa.uint64())),
    "padded integer": ("007", pa.array([7])),
    "text": ("a b", pa.array(["a b"])),
    "padded text": ("007", pa.array(["007"])),
    "long text": ("x" * 200, pa.array(["x" * 200, "x" * 200])),
    "odd text": ("é/%=ü", pa.array(["é/%=ü"])),
    "categories": ("b", pa.array(["b", "b"]).dictionary_encode()),
    "large text": ("b", pa.array(["b", "b"], pa.large_string())),
    "float": ("0.1", pa.array([0.1, 0.1])),
    "single float": ("0.1", pa.array([0.1], pa.float32())),
    "no number": ("nan", pa.array([np.nan, np.nan])),
    "bool": ("true", pa.array([True])),
    "bool of Python": ("True", pa.array([True])),
    "date": ("2024-05-01", pa.array([dt.date(2024, 5, 1)])),
    "moment": ("2024-05-01 12:00:00.000250", pa.array([NOON], pa.timestamp("us"))),
    "moment in nanoseconds": ("2024-05-01 12:00:00.000250", pa.array([NOON], pa.timestamp("ns"))),
    "moment with a zone": (f"{NOON}Z", pa.array([NOON], pa.timestamp("us", "UTC"))),
    "moment without its zone": (str(NOON), pa.array([NOON], pa.timestamp("us", "UTC"))),
    "time of day": ("12:30:00", pa.array([dt.time(12, 30)], pa.time64("us"))),
    "decimal": ("1.50", pa.array([Decimal("1.5")], pa.decimal128(5, 2))),
    "missing text": ("__HIVE_DEFAULT_PARTITION__", pa.array([None, None], pa.string())),
    "missing integer": ("__HIVE_DEFAULT_PARTITION__", pa.array([None], pa.int64())),
    "nothing": ("__HIVE_DEFAULT_PARTITION__", pa.nulls(3)),
}  # fmt: skip


def table(array: pa.Array) -> dict[str, Any]:
    return {"x": np.arange(float(len(array))), "k": array}


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "none"])
@pytest.mark.parametrize("case", list(EQUAL))
def test_equal_values_are_one_column(write: Write, data: Path, case: str, statistics: bool) -> None:
    text, array = EQUAL[case]
    write(f"k={quote(text, safe='')}/a.parquet", table(array), write_statistics=statistics)
    plan = plan_dataset(data, id_columns=["k"])
    assert plan.features == ("x",)
    assert plan.key_columns == ("k",)
    (source,) = sources(plan)
    column = read_table(source, ("k",)).column("k")
    if pa.types.is_null(array.type):
        assert column.to_pylist() == [None] * len(array)
        return
    plain = array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array
    assert column.type in (plain.type, pa.string())
    assert str(column.combine_chunks().cast(plain.type)) == str(plain)


DIFFERENT: dict[str, tuple[str, pa.Array, str]] = {
    "another integer": ("2024", pa.array([2023, 2023]), "holds '2023', but its folder"),
    "one of many": ("2024", pa.array([2024, 2024, 2025]), "holds '2025'"),
    "a missing value": ("2024", pa.array([2024, None]), "holds a missing value"),
    "a value in the null folder": ("__HIVE_DEFAULT_PARTITION__", pa.array([None, 7]), "holds '7'"),
    "text that is no number": ("x", pa.array([2024]), "holds '2024'"),
    "another text": ("07", pa.array(["7"]), "holds '7'"),
    "a longer text": ("x" * 100, pa.array(["x" * 101]), "holds 'xxx"),
    "a float between": ("1", pa.array([1.0, np.nan, 1.0]), "holds 'nan'"),
    "another moment": ("2024-05-01", pa.array([NOON]), "holds '2024-05-01 12:00"),
    "a list": ("1", pa.array([[1]]), "holds values of type list"),
}


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "none"])
@pytest.mark.parametrize("case", list(DIFFERENT))
def test_other_values_name_file_column_and_both(
    write: Write, data: Path, case: str, statistics: bool
) -> None:
    text, array, said = DIFFERENT[case]
    name = f"k={quote(text, safe='')}/a.parquet"
    write(name, table(array), row_group_size=2, write_statistics=statistics)
    (line,) = problems_of(data, features=["x"])
    assert line.startswith(f"{name}, column 'k': {said}")
    assert f"k={None if 'HIVE' in text else text!r}" in line
    assert "rename the column or the folder" in line


def test_a_key_that_is_a_column_of_some_files_has_its_type(write: Write, data: Path) -> None:
    write("k=1/a.parquet", {"x": [1.0], "k": pa.array([1], pa.int32())})
    write("k=2/a.parquet", {"x": [1.0]})
    write("k=3/a.parquet", {"x": [1.0], "k": pa.array([3], pa.int64())})
    plan = plan_dataset(data, features=["x"], keep="all")
    tables = [read_table(source, ("x", "k")) for source in sources(plan)]
    assert [each.column("k").to_pylist() for each in tables] == [[1], [2], [3]]
    assert {each.schema.field("k").type for each in tables} == {pa.int64()}


def test_a_key_that_is_no_value_of_the_type_of_other_files_is_named(
    write: Write, data: Path
) -> None:
    write("k=1/a.parquet", {"x": [1.0], "k": [1]})
    write("k=one/a.parquet", {"x": [1.0]})
    assert plan_dataset(data, features=["x"]).n_rows == 2
    (line,) = problems_of(data, features=["x"], id_columns=["k"])
    assert line.startswith("k=one/a.parquet: its folder is that of k='one', which is no int64")


def test_a_key_with_values_of_no_one_type_cannot_be_kept(write: Write, data: Path) -> None:
    write("k=1/a.parquet", {"x": [1.0], "k": ["1"]})
    write("k=2/a.parquet", {"x": [1.0], "k": [2]})
    assert plan_dataset(data, features=["x"]).n_rows == 2
    (line,) = problems_of(data, features=["x"], id_columns=["k"])
    assert "'k': is int64, but string" in line


def test_a_key_that_all_files_have_may_be_a_feature_if_named(write: Write, data: Path) -> None:
    for year in (2023, 2024):
        write(f"k={year}/a.parquet", {"x": [1.0, 2.0], "k": [year, year]})
    assert plan_dataset(data).features == ("x",)
    plan = plan_dataset(data, features=["x", "k"], id_columns=["k"])
    rows = np.concatenate(
        [read_features(each, plan.features, plan.dtype) for each in sources(plan)]
    )
    assert rows[:, 1].tolist() == [2023, 2023, 2024, 2024]
    write("k=2025/a.parquet", {"x": [1.0]})
    (line,) = problems_of(data, features=["x", "k"])
    assert "'k' is a folder key, not a column of all files" in line


def test_files_of_no_rows_contradict_nothing(write: Write, data: Path) -> None:
    write("k=1/a.parquet", {"x": [1.0], "k": [1]})
    write(
        "k=2/a.parquet", pa.table({"x": pa.array([], pa.float64()), "k": pa.array([], pa.date32())})
    )
    assert plan_dataset(data, id_columns=["k"]).n_rows == 1


def test_statistics_save_reading_the_column(write: Write, data: Path) -> None:
    """Damage in the pages does not show in the plan, because the plan does not read them."""
    rng = np.random.default_rng(0)
    file = write("k=1/a.parquet", {"k": np.ones(100_000, int), "x": rng.normal(size=100_000)})
    content = bytearray(file.read_bytes())
    content[4:-FIRST_READ] = b"\x00" * (len(content) - FIRST_READ - 4)
    file.write_bytes(content)
    assert plan_dataset(data, features=["x"]).n_rows == 100_000
    with pytest.raises(OSError):
        pq.read_table(file)


def test_damage_in_a_column_that_must_be_read_is_named(write: Write, data: Path) -> None:
    n = 200_000
    columns = {"k": np.ones(n), "x": np.random.default_rng(0).normal(size=n)}
    file = write("k=1/a.parquet", columns, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[4:1000] = b"\xff" * 996
    file.write_bytes(content)
    (line,) = problems_of(data, features=["x"])
    assert line.startswith("k=1/a.parquet, column 'k': the data are damaged")
