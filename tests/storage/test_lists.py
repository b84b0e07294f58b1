"""A column of lists of one length is read as a vector: each element is a feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask import load_model, read_labels
from gmm_dask.errors import DataError
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.storage.input.parquet.opened import BATCH_BYTES
from gmm_dask.storage.input.planning import plan_dataset
from tests.storage.conftest import Write, problems_of, read_all, write_file

ROWS = np.arange(24.0).reshape(8, 3) ** 2
NAMES = ("emb[0]", "emb[1]", "emb[2]")
TYPES = {
    "fixed size": pa.list_(pa.float64(), 3),
    "fixed size of float": pa.list_(pa.float32(), 3),
    "list": pa.list_(pa.float64()),
    "large list": pa.large_list(pa.int64()),
    "list of float16": pa.list_(pa.float16()),
}


def lists(X: np.ndarray, type_: pa.DataType) -> pa.Array:
    return pa.array(X.tolist(), type_)


@pytest.mark.parametrize("kind", list(TYPES))
def test_the_elements_of_a_list_are_features_in_their_order(
    write: Write, data: Path, kind: str
) -> None:
    write("a.parquet", {"name": ["x"] * 5, "emb": lists(ROWS[:5], TYPES[kind])}, row_group_size=2)
    write("b.parquet", {"name": ["x"] * 3, "emb": lists(ROWS[5:], TYPES[kind])})
    plan = plan_dataset(data)
    assert plan.features == NAMES
    assert plan.feature_columns == ("emb",)
    assert plan.feature_types == (str(TYPES[kind].value_type),) * 3
    np.testing.assert_array_equal(read_all(plan), ROWS)
    again = plan_dataset(data, features=NAMES)  # as a model names them
    np.testing.assert_array_equal(read_all(again), ROWS)


def test_files_may_write_the_same_lists_in_other_types(write: Write, data: Path) -> None:
    for i, type_ in enumerate(TYPES.values()):
        write(f"{i}.parquet", {"emb": lists(ROWS, type_)})
    write("9.parquet", {"emb": pa.nulls(2)})
    X = read_all(plan_dataset(data, features=["emb"], missing="drop"))
    np.testing.assert_array_equal(X[:-2], np.tile(ROWS, (len(TYPES), 1)))
    assert np.isnan(X[-2:]).all()


def test_lists_and_numbers_are_features_side_by_side(write: Write, data: Path) -> None:
    columns = {"b": ROWS[:, 0], "emb": lists(ROWS, TYPES["list"]), "a": ROWS[:, 1]}
    write("a.parquet", columns)
    assert plan_dataset(data).features == ("b", "a")  # numbers, where there are any
    plan = plan_dataset(data, features=["a", "emb", "b"])
    assert plan.features == ("a", *NAMES, "b")
    assert plan.feature_columns == ("a", "emb", "b")
    expected = np.column_stack([ROWS[:, 1], ROWS, ROWS[:, 0]])
    np.testing.assert_array_equal(read_all(plan), expected)


@pytest.mark.parametrize("kind", ["fixed size", "list"])
def test_what_is_null_is_missing(write: Write, data: Path, kind: str) -> None:
    values = [[1.0, 2.0, 3.0], None, [4.0, None, 6.0], [7.0, 8.0, 9.0]]
    write("a.parquet", {"emb": pa.array(values, TYPES[kind])}, row_group_size=3)
    (problem,) = problems_of(data)
    assert problem.startswith("a.parquet, row group 0, column 'emb': 2 nulls. ")
    nan = np.nan
    np.testing.assert_array_equal(
        read_all(plan_dataset(data, missing="em")),
        [[1, 2, 3], [nan, nan, nan], [4, nan, 6], [7, 8, 9]],
    )


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=12), group=st.integers(1, 5))
def test_lists_of_several_lengths_are_never_read_as_vectors(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], group: int
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    values = [[float(i)] * n for i, n in enumerate(lengths)]
    write_file(folder / "a.parquet", {"emb": pa.array(values, TYPES["list"])}, row_group_size=group)
    if len(set(lengths)) == 1 and lengths[0]:
        np.testing.assert_array_equal(read_all(plan_dataset(folder)), values)
        return
    with pytest.raises(DataError, match=r"'emb'.*length"):
        read_all(plan_dataset(folder, missing="drop"))


UNUSABLE: dict[str, tuple[Any, str]] = {
    "several lengths": ([[1.0], [1.0, 2.0]], "different lengths"),
    "no list that is whole": ([[1.0, 2.0], None], "missing values hide their length"),
}


@pytest.mark.parametrize("what", list(UNUSABLE))
def test_lists_of_no_one_length_are_named(write: Write, data: Path, what: str) -> None:
    values, told = UNUSABLE[what]
    write("a.parquet", {"emb": pa.array(values, pa.list_(pa.float64()))})
    (problem,) = problems_of(data, missing="drop")
    assert problem.startswith("a.parquet, column 'emb': ")
    assert told in problem


@pytest.mark.parametrize(
    "values", [[None, None], [[1.0, 2.0, 3.0], None], [None, [1.0, None, 3.0]]]
)
def test_the_features_of_a_model_say_how_long_lists_are(
    write: Write, data: Path, values: list[Any]
) -> None:
    write("a.parquet", {"emb": pa.array(values, TYPES["list"])})
    plan = plan_dataset(data, features=NAMES, missing="drop", to_fit=False)
    expected = np.array([row or [None] * 3 for row in values], dtype=float)
    np.testing.assert_array_equal(read_all(plan), expected)
    write("a.parquet", {"emb": pa.array([[1.0, 2.0], None], TYPES["list"])})
    with pytest.raises(DataError, match="'emb': a list of 2 values, where others have 3"):
        read_all(plan_dataset(data, features=NAMES, missing="drop", to_fit=False))


def test_what_files_disagree_on_is_named(write: Write, data: Path) -> None:
    write("a.parquet", {"emb": lists(ROWS, TYPES["list"])})
    write("b.parquet", {"emb": lists(ROWS[:, :2], TYPES["list"])})
    (problem,) = problems_of(data)
    assert problem.startswith("b.parquet, column 'emb': has lists of 2 values, but 3 in a.parquet.")
    write("b.parquet", {"emb": [1.0, 2.0]})
    (problem,) = problems_of(data, features=["emb"])
    assert problem.startswith("b.parquet, column 'emb': is double, not a list of numbers")
    assert "a list of numbers in all files" in problem
    (data / "a.parquet").unlink()
    (problem,) = problems_of(data, features=NAMES, to_fit=False)
    assert problem == (
        "b.parquet, column 'emb': is double, not a list of numbers. Make it a list of numbers in "
        "each row."
    )
    write("b.parquet", {"emb": lists(ROWS[:, :1], TYPES["list"])})
    (problem,) = problems_of(data, features=["emb"], to_fit=False)  # of a model of numbers
    assert problem.endswith("not a number. Make it a number in each row.")


def test_the_elements_are_features_all_together_or_none_is(write: Write, data: Path) -> None:
    write("a.parquet", {"x": ROWS[:, 0], "emb": lists(ROWS, TYPES["list"])})
    for features in (NAMES[:2], NAMES[::-1], (NAMES[0], "x", *NAMES[1:]), (*NAMES, "emb[3]")):
        problems = problems_of(data, features=features)
        assert all("'emb' have 3 values" in problem for problem in problems)
    write("a.parquet", {"emb[1]": ROWS[:, 0], "emb": lists(ROWS, TYPES["list"])})
    (problem,) = problems_of(data, features=["emb"])
    assert "is named like an element of 'emb'" in problem


def test_two_columns_of_lists_are_not_chosen_between(write: Write, data: Path) -> None:
    write("a.parquet", {"one": lists(ROWS, TYPES["list"]), "two": lists(ROWS, TYPES["list"])})
    (problem,) = problems_of(data)
    assert "no single one a list of numbers" in problem
    assert plan_dataset(data, id_columns=["two"]).feature_columns == ("one",)


def test_long_lists_are_read_in_small_batches(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = BATCH_BYTES // 8 // 1000
    X = np.random.default_rng(0).normal(size=(3000, length))
    values = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), length)
    write("a.parquet", {"emb": values})
    seen: list[int] = []
    real = pa.parquet.ParquetFile.iter_batches

    def iterate(self: Any, *arguments: Any, **options: Any) -> Any:
        for batch in real(self, *arguments, **options):
            seen.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pa.parquet.ParquetFile, "iter_batches", iterate)
    np.testing.assert_array_equal(read_all(plan_dataset(data)), X)
    assert max(seen) * length * 8 <= BATCH_BYTES


def test_a_run_over_lists_is_the_run_over_their_columns(write: Write, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)) + np.arange(200)[:, None] % 2 * 9
    ids = [f"{i}" for i in range(200)]
    write("a.parquet", {"id": ids, "emb": lists(X, TYPES["fixed size"])})
    write("../flat/a.parquet", {"id": ids, **dict(zip(NAMES, X.T, strict=True))})
    for folder, features in (("data", ["emb"]), ("flat", list(NAMES))):
        settings = {
            "data": {"path": f"{tmp_path / folder}", "features": features, "id_columns": ["id"]},
            "fit": {"n_components": 2},
            "output": {"path": f"{tmp_path / folder}-out"},
        }
        run(settings_from(settings))
    one, two = (load_model(f"{tmp_path / folder}-out") for folder in ("data", "flat"))
    assert one.feature_names == two.feature_names == NAMES
    np.testing.assert_array_equal(one.parameters.means, two.parameters.means)
    one, two = (read_labels(f"{tmp_path / folder}-out").compute() for folder in ("data", "flat"))
    assert one.equals(two)
    settings = {
        "data": {"path": f"{tmp_path / 'data'}", "id_columns": ["id"], "features": ["emb"]},
        "model": f"{tmp_path / 'flat'}-out",
        "output": {"path": f"{tmp_path}/scored"},
    }
    score(settings_from(settings, schema=ScoreSettings))
    assert read_labels(f"{tmp_path}/scored").compute().equals(two)
