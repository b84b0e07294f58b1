"""Batches with little or nothing in them are labelled, as an hourly job needs it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NoReturn

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gmm_dask import load_model, read_labels
from gmm_dask.command.results import print_published
from gmm_dask.errors import DataError
from gmm_dask.flows.artifacts import labelled_rows, outputs_markdown
from gmm_dask.stage.lineage.history import history
from gmm_dask.stage.outputs import Published, open_output
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.storage import verify

N = 60
NULLS = [None] * N
SCHEMA = pa.schema(
    [("x", pa.float64()), ("y", pa.float64()), ("id", pa.int64()), ("name", pa.string())]
)


def rows() -> pa.Table:
    X = np.random.default_rng(0).normal(size=(N, 2)) + 8 * (np.arange(N) % 2)[:, None]
    names = [f"row {i}" for i in range(N)]
    return pa.table([X[:, 0], X[:, 1], np.arange(N), names], schema=SCHEMA)


def with_x(values: pa.Array) -> pa.Table:
    return rows().set_column(0, "x", values)


def no_row_groups(file: Path) -> None:
    pq.ParquetWriter(file, SCHEMA).close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    pq.write_table(rows(), folder / "a.parquet")
    run(
        settings_from({
            "data": {"path": str(folder / "a.parquet"), "features": ["x", "y"]},
            "fit": {"n_components": 2},
            "output": {"path": str(folder / "out")},
        })
    )  # fmt: skip
    return str(folder / "out")


def labelled(model: str, folder: Path, **data: Any) -> Published:
    document = {
        "data": {"path": str(folder / "data"), "id_columns": ["id", "name"], **data},
        "model": model,
        "labels": {"responsibilities": True},
        "output": {"path": str(folder / "labels")},
    }
    return score(settings_from(document, ScoreSettings))


def write(folder: Path, *tables: pa.Table | pd.DataFrame) -> None:
    (folder / "data").mkdir()
    for i, table in enumerate(tables):
        if isinstance(table, pd.DataFrame):
            table = pa.Table.from_pandas(table)
        pq.write_table(table, folder / "data" / f"{i}.parquet")


def check_whole_and_readable(published: Published) -> None:
    """What holds of every version: it is whole, its records are JSON, and all that shows it can."""
    assert not verify(published.folder.store, published.version)
    url = published.folder.store.url
    metrics = Path(published.folder.path("metrics.json")).read_text()
    assert json.loads(metrics, parse_constant=no_number) == published.metrics
    assert "NaN" not in Path(published.path("report")).read_text().replace("null or NaN", "")
    shown = io.StringIO()
    print_published(open_output(url), Console(file=shown, width=100))
    assert f"rows            {published.metrics['n_rows']}" in shown.getvalue()
    assert "nan" not in shown.getvalue()
    assert "| log-likelihood |" in outputs_markdown(published)
    assert sum(row["rows"] for row in labelled_rows(published)) == published.metrics["n_rows"]
    assert load_model(url).parameters.n_components == 2
    (listed,) = history(url)
    assert (listed.log_likelihood is None) == (published.metrics["bic"] is None)


def no_number(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


NO_ROWS = {
    "no rows in its file": [rows()[:0]],
    "no rows in all of its files": [rows()[:0], rows()[:0]],
    "columns of no type, as pandas writes them": [pd.DataFrame(columns=SCHEMA.names)],
    "columns of strings, as readers of CSV make them": [
        pa.table({name: pa.array([], pa.string()) for name in SCHEMA.names})
    ],
    "a file without columns beside": [pd.DataFrame(), rows()[:0]],
}


@pytest.mark.parametrize("missing", ["error", "drop", "em"])
@pytest.mark.parametrize("batch", list(NO_ROWS))
def test_a_batch_of_no_rows_has_no_labels(
    model: str, tmp_path: Path, batch: str, missing: str
) -> None:
    write(tmp_path, *NO_ROWS[batch])
    published = labelled(model, tmp_path, missing=missing)
    check_whole_and_readable(published)
    metrics = published.metrics
    assert (metrics["n_rows"], metrics["n_used"], metrics["n_labelled"]) == (0, 0, [0, 0])
    assert metrics["log_likelihood"] == 0
    for name in ("log_likelihood_per_row", "bic", "aic", "icl"):
        assert metrics[name] is None
    labels = read_labels(published.folder.store.url).compute()
    assert len(labels) == 0
    assert list(labels) == [
        "row_id", "id", "name",
        "label", "log_density", "max_responsibility", "reason", "responsibilities",
    ]  # fmt: skip
    numbers = labels.dtypes[["row_id", "label", "log_density", "max_responsibility"]]
    assert list(map(str, numbers)) == ["int64", "int32", "float64", "float64"]
    again = labelled(model, tmp_path, missing=missing)
    assert (again.new, again.version) == (False, published.version)


def test_the_labels_of_no_rows_have_the_types_of_the_labels_of_some(
    model: str, tmp_path: Path
) -> None:
    schemas = []
    for name, n_rows in (("none", 0), ("some", N)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, rows()[:n_rows])
        published = labelled(model, tmp_path / name)
        (part,) = Path(published.path("labels")).iterdir()
        schemas.append(pq.read_schema(part).remove_metadata())
    assert schemas[0] == schemas[1]


def test_a_file_without_row_groups_and_one_without_columns_hold_no_rows(
    model: str, tmp_path: Path
) -> None:
    for name in ("no row groups", "no columns", "folders"):
        (tmp_path / name / "data" / "day=1").mkdir(parents=True)
    no_row_groups(tmp_path / "no row groups" / "data" / "a.parquet")
    pd.DataFrame().to_parquet(tmp_path / "no columns" / "data" / "a.parquet")
    check_whole_and_readable(labelled(model, tmp_path / "no row groups"))
    check_whole_and_readable(labelled(model, tmp_path / "no columns"))
    pd.DataFrame().to_parquet(tmp_path / "folders" / "data" / "day=1" / "a.parquet")
    published = labelled(model, tmp_path / "folders", id_columns=["day", "id"])
    check_whole_and_readable(published)
    assert {"day", "id"} < set(read_labels(published.folder.store.url).columns)


NOTHING_TO_USE = {
    "of type null": with_x(pa.nulls(N)),
    "nulls": with_x(pa.array(NULLS, pa.float64())),
    "NaN": with_x(pa.array(np.full(N, np.nan))),
}


@pytest.mark.parametrize("batch", list(NOTHING_TO_USE))
def test_rows_without_a_value_are_all_dropped_with_a_reason(
    model: str, tmp_path: Path, batch: str
) -> None:
    write(tmp_path, NOTHING_TO_USE[batch])
    published = labelled(model, tmp_path, missing="drop")
    check_whole_and_readable(published)
    assert published.metrics["n_dropped"] == {"missing": N}
    assert published.metrics["log_likelihood_per_row"] is None
    labels = read_labels(published.folder.store.url).compute()
    assert labels["id"].tolist() == list(range(N))
    assert set(labels["label"]) == {-1}
    assert set(labels["reason"]) == {"missing"}
    assert labels["log_density"].isna().all()


@pytest.mark.parametrize("batch", list(NOTHING_TO_USE))
def test_rows_without_a_value_are_labelled_by_the_others_with_em(
    model: str, tmp_path: Path, batch: str
) -> None:
    write(tmp_path, NOTHING_TO_USE[batch])
    published = labelled(model, tmp_path, missing="em")
    labels = read_labels(published.folder.store.url).compute()
    nearest = np.abs(rows()["y"].to_numpy()[:, None] - load_model(model).parameters.means[:, 1])
    assert labels["label"].tolist() == nearest.argmin(axis=1).tolist()


def test_one_batch_in_which_some_files_are_poor_is_labelled_whole(
    model: str, tmp_path: Path
) -> None:
    write(tmp_path, rows()[:0], NOTHING_TO_USE["of type null"], rows())
    published = labelled(model, tmp_path, missing="drop")
    check_whole_and_readable(published)
    labels = read_labels(published.folder.store.url).compute()
    assert (labels["label"] == -1).tolist() == [True] * N + [False] * N


@pytest.mark.parametrize("batch", list(NOTHING_TO_USE))
def test_strict_labels_refuse_missing_values_of_every_type(
    model: str, tmp_path: Path, batch: str
) -> None:
    write(tmp_path, NOTHING_TO_USE[batch])
    with pytest.raises(DataError, match=r"'x'.*data\.missing: drop or em"):
        labelled(model, tmp_path)


@pytest.mark.parametrize(
    "type_", [pa.null(), pa.string(), pa.list_(pa.float64()), pa.list_(pa.float64(), 2)], ids=str
)
def test_a_column_of_lists_may_hold_none(tmp_path: Path, type_: pa.DataType) -> None:
    pairs = pa.FixedSizeListArray.from_arrays(np.random.default_rng(0).normal(size=2 * N), 2)
    pq.write_table(pa.table({"pair": pairs}), tmp_path / "a.parquet")
    out = str(tmp_path / "out")
    document = {"data": {"path": str(tmp_path / "a.parquet")}, "output": {"path": out}}
    run(settings_from(document))
    write(tmp_path, pa.table({"pair": pa.array([], type_)}))
    published = labelled(out, tmp_path, id_columns=["pair"])
    assert published.metrics["n_rows"] == 0
    assert verify(published.folder.store, published.version) == []


def test_a_batch_is_refused_where_its_files_name_other_columns(model: str, tmp_path: Path) -> None:
    write(tmp_path, rows()[:0].drop_columns("y"))
    with pytest.raises(DataError, match="features of the model: no file has a column 'y'"):
        labelled(model, tmp_path)


def test_what_the_model_needs_is_not_advised_to_be_left_out(model: str, tmp_path: Path) -> None:
    """The features are those of the fit: whoever labels can only mend the batch."""
    text = with_x(pa.array([f"{i}" for i in range(N)]))
    decimal = with_x(pa.array(list(range(N)), pa.decimal128(12, 4)))
    write(tmp_path, text, decimal, rows().drop_columns("y"))
    with pytest.raises(DataError) as caught:
        labelled(model, tmp_path)
    assert caught.value.problems == (
        "0.parquet, column 'x': is string, not a number. Put numbers in its place.",
        "1.parquet, column 'x': is decimal128(12, 4), not a number. Set data.cast: [decimal].",
        "2.parquet: has no column 'y', as other files have. Write the column into the file.",
    )


def test_a_folder_without_files_is_no_batch(model: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match="Parquet"):
        labelled(model, tmp_path)


def test_rows_of_no_weight_are_labelled_and_count_for_nothing(model: str, tmp_path: Path) -> None:
    write(tmp_path, rows().append_column("w", [np.zeros(N)]))
    published = labelled(model, tmp_path, weight_column="w")
    check_whole_and_readable(published)
    assert sum(published.metrics["n_labelled"]) == N
    assert published.metrics["bic"] is None


def test_weights_beyond_what_a_total_can_be_are_named(model: str, tmp_path: Path) -> None:
    write(tmp_path, rows().append_column("w", [np.full(N, 2e306)]))
    with pytest.raises(DataError, match=r"column 'w': the weights add up to 1\.2e\+308"):
        labelled(model, tmp_path, weight_column="w")


@pytest.mark.parametrize("batch", [*NO_ROWS, *NOTHING_TO_USE])
def test_nothing_is_learnt_from_a_poor_batch(tmp_path: Path, batch: str) -> None:
    write(tmp_path, *(NO_ROWS.get(batch) or [NOTHING_TO_USE[batch]]))
    document = {
        "data": {"path": str(tmp_path / "data"), "features": ["x", "y"], "missing": "drop"},
        "output": {"path": str(tmp_path / "out")},
    }
    with pytest.raises(DataError):
        run(settings_from(document))
    assert not (tmp_path / "out" / "versions").exists()


def test_labels_have_the_types_of_the_files_that_know_them(model: str, tmp_path: Path) -> None:
    """A file of an empty frame comes first, and has columns of no type."""
    write(tmp_path, pd.DataFrame(columns=SCHEMA.names), rows()[:0])
    published = labelled(model, tmp_path)
    (part,) = Path(published.path("labels")).iterdir()
    schema = pq.read_schema(part)
    assert (schema.field("id").type, schema.field("name").type) == (pa.int64(), pa.string())


@pytest.mark.parametrize("by", [None, ["name"]], ids=["whole", "partitioned"])
def test_a_delta_table_without_rows_is_a_batch_of_none(
    model: str, tmp_path: Path, by: list[str] | None
) -> None:
    """No file is a part of it, neither before the first rows nor after all are deleted."""
    for name in ("new", "emptied"):
        root = tmp_path / name / "data"
        root.parent.mkdir()
        first = rows()[: 0 if name == "new" else 3]
        deltalake.write_deltalake(str(root), first, partition_by=by)
        deltalake.DeltaTable(str(root)).delete()
        published = labelled(model, tmp_path / name)
        check_whole_and_readable(published)
        labels = read_labels(published.folder.store.url).compute()
        assert {"id", "name"} < set(labels.columns)
        assert str(labels["id"].dtype) == "int64"
        again = labelled(model, tmp_path / name)
        assert (again.new, again.version) == (False, published.version)
    document = {
        "data": {"path": str(tmp_path / "new" / "data")},
        "output": {"path": str(tmp_path / "out")},
    }
    with pytest.raises(DataError, match="0 files hold no rows"):
        run(settings_from(document))
