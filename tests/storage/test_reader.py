"""The reader: exactly the planned rows, in bounded memory, from the planned file or not at all."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import DataError, InputChangedError
from gmm_dask.storage.input.parquet.opened import BLOCK_ROWS
from gmm_dask.storage.input.parquet.reader import (
    COLUMNS_AT_ONCE,
    open_planned,
    read_features,
    read_table,
)
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.storage.conftest import Write, read_all, write_file

COMPRESSIONS = ("none", "snappy", "zstd", "gzip", "lz4")
TYPES = ("float", "double", "int8", "int16", "int32", "int64", "uint8", "halffloat")


# Exact rows


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[dict[str, Any]], int]:
    """A number of rows, the files they are split into, and a chunk size."""
    n = draw(st.integers(1, 60))
    edges = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    files = [
        {
            "rows": (start, stop),
            "order": draw(st.permutations(["a", "b", "c", "id"])),
            "types": {name: draw(st.sampled_from(TYPES)) for name in "abc"},
            "row_group_size": draw(st.integers(1, 20)),
            "compression": draw(st.sampled_from(COMPRESSIONS)),
            "use_dictionary": draw(st.booleans()),
            "data_page_size": draw(st.sampled_from([1, 64, 1 << 20])),
            "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
            "write_page_checksum": draw(st.booleans()),
        }
        for start, stop in zip([0, *edges], [*edges, n], strict=True)
    ]
    return n, files, draw(st.integers(1, 30)) * 3 * 8


@given(layout=layouts())
def test_any_split_into_files_gives_the_same_rows_in_order(
    layout: tuple[int, list[dict[str, Any]], int],
) -> None:
    n, files, chunk_bytes = layout
    rows = np.random.default_rng(n).integers(0, 100, (n, 3)).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        for i, options in enumerate(files):
            options = dict(options)
            (start, stop), order = options.pop("rows"), options.pop("order")
            columns = {"id": pa.array(np.arange(start, stop))}
            for j, (name, type_) in enumerate(options.pop("types").items()):
                dtype = pa.type_for_alias(type_).to_pandas_dtype()
                columns[name] = pa.array(rows[start:stop, j].astype(dtype))
            table = pa.table({name: columns[name] for name in order})
            write_file(Path(folder) / f"{i:02}.parquet", table, **options)
        plan = plan_dataset(
            folder, features=["a", "b", "c"], id_columns=["id"], chunk_bytes=chunk_bytes
        )
        assert plan.n_rows == n
        assert all(0 < chunk.n_rows <= chunk_bytes // 24 for chunk in plan.chunks)
        stops = [chunk.first_row + chunk.n_rows for chunk in plan.chunks]
        assert [chunk.first_row for chunk in plan.chunks] == [0, *stops[:-1]]
        X = read_all(plan)
        assert X.dtype == plan.dtype
        np.testing.assert_array_equal(X, rows)
        ids = pa.concat_tables(read_table(source, ("id",)) for source in sources(plan))
        assert ids["id"].to_pylist() == list(range(n))


@pytest.mark.parametrize("n", [1, BLOCK_ROWS - 1, BLOCK_ROWS, 3 * BLOCK_ROWS + 5, 150_000])
def test_rows_are_exact_at_the_edges_of_blocks_and_batches(
    write: Write, data: Path, n: int
) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 2))
    write("a.parquet", {"x": rows[:, 0], "y": rows[:, 1]}, row_group_size=n)
    plan = plan_dataset(data, chunk_bytes=16 * max(1, n // 3))
    X = read_all(plan)
    np.testing.assert_array_equal(X, rows)
    first = read_features(sources(plan)[0], ("y", "x"), "float64")
    np.testing.assert_array_equal(first, rows[: plan.chunks[0].n_rows, ::-1])
    assert first.flags.c_contiguous


def test_empty_row_groups_are_passed_over(data: Path) -> None:
    schema = pa.schema([("x", pa.float64())])
    rows = iter(np.arange(6.0))
    with pq.ParquetWriter(data / "a.parquet", schema) as writer:
        for size in [0, 2, 0, 0, 3, 0, 1, 0]:
            values = pa.array([next(rows) for _ in range(size)], pa.float64())
            writer.write_batch(pa.record_batch([values], schema=schema))
            writer.writer.new_row_group() if False else None
    file = pq.ParquetFile(data / "a.parquet")
    assert file.metadata.num_row_groups >= 1
    np.testing.assert_array_equal(read_all(plan_dataset(data))[:, 0], np.arange(6.0))


def test_many_columns_are_read_in_groups(write: Write, data: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 2 * COLUMNS_AT_ONCE + 3))
    write("a.parquet", {f"x{j}": rows[:, j] for j in range(rows.shape[1])}, row_group_size=7)
    plan = plan_dataset(data, chunk_bytes=rows.shape[1] * 8 * 10)
    np.testing.assert_array_equal(read_all(plan), rows)


def test_column_names_may_hold_dots_and_share_a_prefix(write: Write, data: Path) -> None:
    columns = {"x.y": [1.0], "x": [2.0], "x.y.z": [3.0], "größe (cm)": [4.0], "s": [{"x": 9.0}]}
    write("a.parquet", columns)
    plan = plan_dataset(data)
    assert plan.features == ("x.y", "x", "x.y.z", "größe (cm)")
    assert read_all(plan).tolist() == [[1.0, 2.0, 3.0, 4.0]]
    (source,) = sources(plan)
    assert read_table(source, ("s", "x")).to_pylist() == [{"s": {"x": 9.0}, "x": 2.0}]


@pytest.mark.parametrize("name", ["a b/c d.parquet", "k=%2F/100%.parquet", "größe/日本.parquet"])
def test_any_path_can_be_read(write: Write, data: Path, name: str) -> None:
    write(name, {"x": [1.0, 2.0]})
    assert read_all(plan_dataset(data))[:, 0].tolist() == [1.0, 2.0]


# Values


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_null_is_nan_whatever_the_type(write: Write, data: Path, type_: str, dtype: str) -> None:
    values = pa.array([None, 1, None, 2, 3], pa.int8()).cast(pa.type_for_alias(type_))
    write("a.parquet", {"x": values, "y": np.arange(5.0)})
    (source,) = sources(plan_dataset(data, missing="drop"))
    X = read_features(source, ("x", "y"), dtype)
    assert X.dtype == dtype
    np.testing.assert_array_equal(X[:, 0], [np.nan, 1, np.nan, 2, 3])
    np.testing.assert_array_equal(X[:, 1], np.arange(5))


def test_a_file_of_nothing_but_nulls_is_nan(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0]})
    write("b.parquet", {"x": pa.nulls(2)})
    X = read_all(plan_dataset(data, missing="drop"))
    np.testing.assert_array_equal(X[:, 0], [1.0, np.nan, np.nan])


def test_special_floats_come_through_bit_by_bit(write: Write, data: Path) -> None:
    values = np.array([np.nan, -0.0, 5e-324, 1.7976931348623157e308, -np.inf])
    write("a.parquet", {"x": values}, write_statistics=False)
    X = read_all(plan_dataset(data))
    assert X[:, 0].tobytes() == values.tobytes()


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
@pytest.mark.parametrize("nulls", [[], [None]])
def test_integers_that_would_round_are_found_without_statistics(
    write: Write, data: Path, value: int, nulls: list[None]
) -> None:
    values = pa.array([1, 2, *nulls, value], pa.int64())
    write("a.parquet", {"x": values}, row_group_size=2, write_statistics=False)
    plan = plan_dataset(data)
    with pytest.raises(DataError, match=r"a\.parquet, row group \d, column 'x': integers up to"):
        read_all(plan)


def test_weights_are_float64_and_a_null_is_nan(write: Write, data: Path) -> None:
    weights = pa.array([1.0, None, 0.5], pa.float32())
    write("a.parquet", {"x": [1.0, 2.0, 3.0], "w": weights}, write_statistics=False)
    (source,) = sources(plan_dataset(data, weight_column="w"))
    with open_planned(source) as chunk:
        found = chunk.weights("w")
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float64, (3,), True)
    np.testing.assert_array_equal(found, [1.0, np.nan, 0.5])


# Tables


def test_a_table_has_the_columns_asked_for_in_their_types(write: Write, data: Path) -> None:
    table = pa.table(
        {
            "x": np.arange(5.0),
            "id": pa.array([1, None, 3, 4, 5], pa.int16()),
            "when": pa.array([1, 2, 3, 4, 5], pa.timestamp("us", "UTC")),
            "tags": [["a"], [], None, ["b", "c"], ["d"]],
            "kind": pa.array(list("abcab")).dictionary_encode(),
            "long": pa.array(list("vwxyz"), pa.large_string()),
        }
    )
    write("day=2024-01-01/k=__HIVE_DEFAULT_PARTITION__/a.parquet", table, row_group_size=2)
    plan = plan_dataset(data, features=["x"], chunk_bytes=3 * 8)
    names = ("kind", "day", "tags", "id", "k", "when", "long")
    tables = [read_table(source, names) for source in sources(plan)]
    assert [each.num_rows for each in tables] == [2, 3]
    assert len({each.schema for each in tables}) == 1
    found = pa.concat_tables(tables)
    assert tuple(found.column_names) == names
    for name in ("id", "when", "tags"):
        assert found[name].type == table[name].type
        assert found[name].to_pylist() == table[name].to_pylist()
    for name in ("kind", "long"):
        assert found[name].type == pa.string()
        assert found[name].to_pylist() == table[name].to_pylist()
    assert found["day"].to_pylist() == ["2024-01-01"] * 5
    assert (found["k"].type, found["k"].null_count) == (pa.string(), 5)


def test_a_table_of_no_columns_or_keys_alone_has_its_rows(write: Write, data: Path) -> None:
    write("k=1/a.parquet", {"x": np.arange(5.0)})
    (source,) = sources(plan_dataset(data))
    assert read_table(source, ()).num_rows == 5
    assert read_table(source, ("k",)).to_pydict() == {"k": ["1"] * 5}


def test_a_source_is_small_and_survives_pickling(write: Write, data: Path) -> None:
    write("a.parquet", {"x": np.arange(3000.0)}, row_group_size=1)
    plan = plan_dataset(data, chunk_bytes=8 * 100)
    source = sources(plan)[7]
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(pickle.dumps(source)) < 2000
    assert source.row_groups == tuple(range(700, 800))


# Another file than the planned one


# Damage


# Memory

MEASURE = """
import resource, sys
import numpy as np
from gmm_dask.storage import plan_dataset
from gmm_dask.storage.input.parquet.reader import read_features
from gmm_dask.storage.input.sources import sources

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

plan = plan_dataset(sys.argv[1], chunk_bytes=16 << 20)
chosen = sources(plan)[len(plan.chunks) // 2]
before = peak()
X = read_features(chosen, plan.features, plan.dtype)
beyond = peak() - before - X.nbytes
assert X[0, 0] == chosen.start and X[-1, 0] == chosen.stop - 1
print(beyond >> 20, "MiB beyond the result")
assert beyond < 48 << 20, beyond
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_depend_on_the_size_of_a_row_group(tmp_path: Path) -> None:
    n = 4_000_000
    noise = np.random.default_rng(0).normal(size=n)
    columns = {"x": np.arange(float(n)), "a": noise, "b": noise[::-1], "c": noise}
    file = write_file(tmp_path / "a.parquet", columns, row_group_size=n, use_dictionary=False)
    assert pq.read_metadata(file).num_row_groups == 1
    run_script(MEASURE, str(file))


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-3000:])
    return done.stdout


def test_reading_leaves_no_file_open(write: Write, data: Path) -> None:
    write("a.parquet", {"x": np.arange(9.0)})
    (source,) = sources(plan_dataset(data))
    read_features(source, ("x",), "float64")
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        read_features(source, ("x",), "float64")
        with pytest.raises(InputChangedError):
            read_features(replace(source, size=1), ("x",), "float64")
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after <= before


@pytest.mark.parametrize("n_columns", [3, 40])
def test_blocks_are_the_rows_of_the_chunk(tmp_path: Path, n_columns: int) -> None:
    names = [f"x{j}" for j in range(n_columns)]
    values = np.random.default_rng(0).normal(size=(200_000, n_columns))
    table = pa.table(dict(zip(names, values.T, strict=True)))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=70_000)
    (source,) = sources(plan_dataset(str(tmp_path), chunk_bytes=1 << 30))
    asked = tuple(reversed(names))
    with open_planned(source) as chunk:
        blocks = list(chunk.blocks(asked, "float64"))
    assert [row for row, _ in blocks] == [0, *np.cumsum([len(X) for _, X in blocks])[:-1]]
    assert (len(blocks) == 1) == (n_columns == 40)
    np.testing.assert_array_equal(np.concatenate([X for _, X in blocks]), values[:, ::-1])
