"""Columns and keys of a plan: which there are, their types, what statistics tell of values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gmm_dask.errors import DataError
from gmm_dask.storage.input.planning import plan_dataset
from tests.storage.conftest import Write, problems_of, read_all
from tests.storage.test_plan import GOOD, only

# Folder keys


def test_hive_keys_are_decoded_in_path_order(write: Write, data: Path) -> None:
    write("b=x%2Fy z/a=1/part.parquet", GOOD)
    write("b=__HIVE_DEFAULT_PARTITION__/a=01/part.parquet", GOOD)
    plan = plan_dataset(data, id_columns=["a"], keep=["b"])
    assert plan.key_columns == ("b", "a")
    assert [each.keys for each in plan.partitions] == [
        (("b", None), ("a", "01")),
        (("b", "x/y z"), ("a", "1")),
    ]


def test_a_key_that_starts_with_an_underscore_loses_no_rows(write: Write, data: Path) -> None:
    write("_day=1/a.parquet", GOOD)
    assert plan_dataset(data).key_columns == ("_day",)


def test_folder_keys_must_agree(write: Write, data: Path) -> None:
    write("k=1/a.parquet", GOOD)
    write("b.parquet", GOOD)
    only(problems_of(data), "k=1/a.parquet", "b.parquet", "k", "none")


def test_a_key_twice_in_a_path_is_a_problem(write: Write, data: Path) -> None:
    write("k=1/k=2/a.parquet", GOOD)
    only(problems_of(data), "k=1/k=2/a.parquet", "twice")


def test_a_key_must_not_shadow_a_column(write: Write, data: Path) -> None:
    write("x=1/a.parquet", GOOD)
    only(problems_of(data, features=["y"]), "x=1/a.parquet", "'x'", "rename")


def test_a_key_is_no_feature_and_no_weight(write: Write, data: Path) -> None:
    write("k=1/a.parquet", GOOD)
    only(problems_of(data, features=["x", "k"]), "data.features", "'k'", "folder key")
    only(problems_of(data, weight_column="k"), "data.weight_column", "folder key")


# Which columns


def test_features_default_to_the_numbers_without_another_role(write: Write, data: Path) -> None:
    columns = {
        "id": [1, 2],
        "w": [1.0, 1.0],
        "f": pa.array([1, 2], pa.float32()),
        "name": ["a", "b"],
        "flag": [True, False],
        "i": pa.array([1, 2], pa.int16()),
    }
    write("a.parquet", columns)
    plan = plan_dataset(data, id_columns=["id"], weight_column="w")
    assert plan.features == ("f", "i")
    assert plan.feature_types == ("float", "int16")
    assert [name for name, _ in plan.columns] == list(columns)
    assert dict(plan.columns)["name"] == "string"


@pytest.mark.parametrize(
    ("types", "dtype", "widest"),
    [
        (["float", "float"], "float32", "float"),
        (["halffloat", "float"], "float32", "float"),
        (["int8", "uint8"], "float32", "int16"),
        (["uint16", "halffloat"], "float32", "float"),
        (["float", "double"], "float64", "double"),
        (["int32", "int32"], "float64", "int32"),
        (["int32", "float"], "float64", "double"),
        (["int64", "uint64"], "float64", "double"),
    ],
)
def test_the_dtype_holds_every_value(
    write: Write, data: Path, types: list[str], dtype: str, widest: str
) -> None:
    for i, name in enumerate(types):
        values = pa.array(np.arange(3).astype(pa.type_for_alias(name).to_pandas_dtype()))
        write(f"{i}.parquet", {"x": values})
    plan = plan_dataset(data)
    assert (plan.dtype, plan.feature_types) == (dtype, (widest,))


def test_order_and_extra_columns_do_not_matter(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0], "y": [2.0]})
    write("b.parquet", {"more": ["z"], "y": [2.0], "x": [1.0]})
    plan = plan_dataset(data, features=["y", "x"])
    assert plan.features == ("y", "x")
    assert plan.columns == (("x", "double"), ("y", "double"), ("more", "string"))


def test_a_column_that_no_file_has_is_told_once_with_what_was_meant(
    write: Write, data: Path
) -> None:
    for name in "abc":
        write(f"{name}.parquet", {"Sepal": [1.0], "petal_width": [1.0]})
    only(problems_of(data, features=["sepal"]), "data.features", "Did you mean 'Sepal'?")
    only(problems_of(data, features=["petal_widht"]), "Did you mean 'petal_width'?")
    only(problems_of(data, features=["zzz"]), "'zzz'", "Sepal, petal_width")
    only(problems_of(data, id_columns=["SEPAL"]), "data.id_columns", "'Sepal'")
    only(problems_of(data, keep=["q"]), "labels.keep", "'q'")
    only(problems_of(data, weight_column="q"), "data.weight_column", "'q'")


def test_a_column_missing_from_one_file_names_the_file(write: Write, data: Path) -> None:
    write("a.parquet", GOOD)
    write("b.parquet", {"x": [1.0], "Y": [1.0]})
    only(problems_of(data, features=["x", "y"]), "b.parquet", "'y'", "Did you mean 'Y'?")
    assert len(problems_of(data)) == 2  # y is missing in b, Y in a


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a"], "string"),
        (pa.array(["a"], pa.large_string()), "large_string"),
        (pa.array(["a"]).dictionary_encode(), "dictionary"),
        ([True], "bool"),
        (pa.array([1], pa.decimal128(5, 2)), "decimal128(5, 2)"),
        (pa.array([1], pa.timestamp("us")), "timestamp[us]"),
        (pa.array([1], pa.date32()), "date32"),
        (pa.array([[[1.0]]]), "list<"),
        (pa.array([["a"]]), "list<"),
        (pa.array([{"a": 1.0}]), "struct<"),
        ([b"a"], "binary"),
    ],
)
def test_a_feature_must_be_a_number(write: Write, data: Path, values: Any, said: str) -> None:
    write("a.parquet", {"x": [1.0], "bad": values})
    only(problems_of(data, features=["x", "bad"]), "a.parquet", "'bad'", said, "data.features")
    assert plan_dataset(data).features == ("x",)


def test_names_that_look_the_same_are_told_apart(write: Write, data: Path) -> None:
    write("a.parquet", {"caf\u00e9": [1.0, 2.0], "y": [1.0, 2.0]})
    write("b.parquet", {"cafe\u0301": [1.0, 2.0], "y": [1.0, 2.0]})
    problems = problems_of(data, features=["caf\u00e9"])
    only(problems, "b.parquet", r"Did you mean 'cafe\u0301'?", r"looks like 'caf\xe9'")


def test_a_weight_of_lists_is_told_to_be_a_number(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0, 2.0], "w": [[1.0], [2.0]]})
    (problem,) = problems_of(data, features=["x"], weight_column="w")
    assert problem.endswith("or make it a number in each row.")


def test_an_empty_path_is_not_the_current_folder() -> None:
    for path in ("", [" "]):
        with pytest.raises(DataError, match=r"data\.path: is empty\. Name a folder"):
            plan_dataset(path)


def test_a_column_that_is_a_number_in_some_files_only_is_a_problem(
    write: Write, data: Path
) -> None:
    write("a.parquet", {"x": [1.0], "zip": [12345]})
    write("b.parquet", {"x": [1.0], "zip": ["01234"]})
    only(problems_of(data), "b.parquet", "'zip'", "string")


def test_carried_columns_have_one_type(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0], "id": [1], "s": ["a"]})
    write("b.parquet", {"x": [1.0], "id": ["1"], "s": ["a"]})
    only(problems_of(data, features=["x"], id_columns=["id"]), "b.parquet", "'id'", "int64")
    only(problems_of(data, features=["x"], keep="all"), "b.parquet", "'id'", "labels.keep")
    assert plan_dataset(data, features=["x"], keep=["s"]).n_rows == 2
    assert plan_dataset(data, features=["x"], keep="ids").n_rows == 2


def test_dictionaries_and_large_strings_are_strings(write: Write, data: Path) -> None:
    for i, values in enumerate(
        [pa.array(["a"]), pa.array(["a"], pa.large_string()), pa.array(["a"]).dictionary_encode()]
    ):
        write(f"{i}.parquet", {"x": [1.0], "s": values})
    assert dict(plan_dataset(data, id_columns=["s"]).columns)["s"] == "string"


def test_duplicate_column_names_are_a_problem(write: Write, data: Path) -> None:
    write("a.parquet", pa.table([[1.0], [2.0], [3.0]], names=["x", "x", "y"]))
    only(problems_of(data, features=["y"]), "a.parquet", "'x'", "2 times")


def test_no_numeric_column_is_a_problem(write: Write, data: Path) -> None:
    write("a.parquet", {"s": ["a"]})
    only(problems_of(data), "data.features", "s")


def test_one_column_has_one_role(write: Write, data: Path) -> None:
    write("a.parquet", GOOD)
    only(problems_of(data, features=["x", "x"]), "'x'", "2 times")
    only(problems_of(data, features=["x", "y"], weight_column="y"), "'y'", "weight")


@pytest.mark.parametrize("name", ["", "x" * 1025])
def test_a_name_that_no_model_can_hold_is_a_problem(write: Write, data: Path, name: str) -> None:
    write("a.parquet", {"x": [1.0], name: [1.0]})
    only(problems_of(data), "data.features", "name", "1024 characters")
    only(problems_of(data, features=["x", name]), "1024 characters")
    assert plan_dataset(data, features=["x"], keep=[name]).features == ("x",)


@pytest.mark.parametrize("name", [None, "day"])
def test_the_index_of_a_frame_is_no_feature_unless_named(
    write: Write, data: Path, name: str | None
) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index([7, 8], name=name))
    write("a.parquet", pa.Table.from_pandas(frame))
    column = name or "__index_level_0__"
    assert plan_dataset(data).features == ("x",)
    assert plan_dataset(data, features=["x", column]).features == ("x", column)
    assert column in dict(plan_dataset(data, keep="all").columns)


@pytest.mark.parametrize("note", [b"{", b"[]", b'{"index_columns": 3}', b"[" * 100_000])
def test_notes_of_pandas_that_cannot_be_read_do_not_matter(
    write: Write, data: Path, note: bytes
) -> None:
    table = pa.table({"x": [1.0], "__index_level_0__": [0]})
    write("a.parquet", table.replace_schema_metadata({b"pandas": note}))
    assert plan_dataset(data).features == ("x",)


@pytest.mark.parametrize("inside", [pa.list_, lambda type_: pa.struct([("k", type_)])])
def test_a_dictionary_inside_of_another_type_cannot_be_kept(
    write: Write, data: Path, inside: Callable[[pa.DataType], pa.DataType]
) -> None:
    words = pa.array(["a", "b"]).dictionary_encode()
    table = pa.table({"x": [1.0], "odd": pa.nulls(1, inside(words.type))})
    write("a.parquet", table)
    only(problems_of(data, keep=["odd"]), "a.parquet", "'odd'", "dictionary inside", "labels.keep")
    only(problems_of(data, keep="all"), "'odd'")
    only(problems_of(data, id_columns=["odd"]), "data.id_columns")
    assert plan_dataset(data).n_rows == 1


# Values, as far as the statistics tell


def test_nulls_are_told_with_their_place(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0, 2.0, None, None], "y": [1, 2, 3, None]}, row_group_size=2)
    first, second = problems_of(data)
    assert first.startswith("a.parquet, row group 1, column 'x': 2 nulls. ")
    assert second.startswith("a.parquet, row group 1, column 'y': 1 nulls. ")
    assert "data.missing: drop" in first
    assert plan_dataset(data, missing="drop").n_rows == 4
    assert plan_dataset(data, features=["x"], missing="drop").n_rows == 4


def test_nulls_in_columns_without_arithmetic_are_fine(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0, 2.0], "id": [None, 2**60], "y": [None, 1.0]})
    assert plan_dataset(data, features=["x"], id_columns=["id"], keep=["y"]).n_rows == 2


def test_a_column_of_null_type_is_all_nulls(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0, 2.0], "y": [1.0, 2.0]})
    write("b.parquet", {"x": [1.0, 2.0], "y": pa.nulls(2)})
    only(problems_of(data), "b.parquet", "'y'", "2 nulls")
    plan = plan_dataset(data, missing="drop")
    assert plan.feature_types == ("double", "double")
    (data / "a.parquet").unlink()
    only(problems_of(data, features=["x", "y"], missing="drop"), "'y'", "no value")
    assert plan_dataset(data).caution == "Column y holds no value in any file and is no feature."
    write("b.parquet", {"x": [1.0, 2.0], "z": pa.nulls(2), "y": pa.nulls(2)})
    caution = plan_dataset(data).caution
    assert caution == "Columns z, y hold no value in any file and are no feature."
    assert plan_dataset(data, id_columns=["y", "z"]).caution is None
    assert plan_dataset(data, features=["x"]).caution is None


def test_weights_must_be_whole_and_not_negative(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0, 2.0], "w": [None, 1.0]})
    write("b.parquet", {"x": [-1.0, 2.0], "w": [-1.0, np.inf]})
    problems = problems_of(data, weight_column="w", missing="drop")
    assert [line.partition(",")[0] for line in problems] == ["a.parquet", "b.parquet", "b.parquet"]
    assert "1 nulls" in problems[0]
    assert "infinite" in problems[1]
    assert "negative" in problems[2]


@pytest.mark.parametrize("missing", ["error", "drop"])
def test_infinities_in_the_statistics_are_a_problem(write: Write, data: Path, missing: str) -> None:
    write("a.parquet", {"x": pa.array([1.0, -np.inf], pa.float32()), "y": [np.nan, 1e308]})
    only(problems_of(data, missing=missing), "a.parquet, row group 0, column 'x'", "infinite")


@pytest.mark.parametrize(
    ("value", "type_"), [(2**53 + 1, "int64"), (1 - 2**60, "int64"), (2**64 - 1, "uint64")]
)
def test_integers_that_float64_would_round_are_a_problem(
    write: Write, data: Path, value: int, type_: str
) -> None:
    write("a.parquet", {"x": [1.0], "big": pa.array([value], pa.type_for_alias(type_))})
    only(problems_of(data), "a.parquet, row group 0, column 'big'", str(value), "2^53")
    assert plan_dataset(data, features=["x"], keep=["big"]).n_rows == 1


def test_integers_that_float64_holds_are_taken_whatever_their_size(
    write: Write, data: Path
) -> None:
    integers = [2**53, -(2**53), 2**60, -(2**63)]
    write("a.parquet", {"x": integers, "y": pa.array([2**63, 1, 2, 3], pa.uint64())})
    X = read_all(plan_dataset(data))
    assert X[:, 0].tolist() == integers
    assert X[0, 1] == 2**63
