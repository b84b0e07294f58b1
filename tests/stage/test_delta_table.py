"""Labels as a Delta table: after a command that ends well, those of its version."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from gmm_dask import read_labels
from gmm_dask.errors import DataError, GmmDaskError, OutputError, SettingsError
from gmm_dask.stage import publish as delta_table
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.storage import list_versions, open_store
from gmm_dask.storage.input.inputs import open_input
from gmm_dask.storage.records.delta_output import TableOrigin, delta_schema, write_table
from tests.object_service import ObjectService


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two files of 40 rows each, with ids."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(2):
        x = rng.normal(size=(40, 2)) + 8 * rng.integers(0, 2, 40)[:, None]
        ids = np.arange(40) + 40 * i
        pq.write_table(pa.table({"x": x[:, 0], "y": x[:, 1], "id": ids}), folder / f"{i}.parquet")
    return folder


def settings(folder: Path, k: int = 2, **sections: dict[str, Any]) -> Any:
    here = folder.parent
    document: dict[str, dict[str, Any]] = {
        "data": {"path": str(folder), "features": ["x", "y"], "id_columns": ["id"]},
        "fit": {"n_components": k},
        "labels": {"delta_table": str(here / "table")},
        "output": {"path": str(here / "out")},
    }
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    return settings_from(document)


def table_of(data: Path) -> DeltaTable:
    return DeltaTable(data.parent / "table")


def check_holds(published: Published, table: DeltaTable) -> None:
    """The table holds exactly the labels of the version, and says so."""
    url = published.folder.store.url
    expected = read_labels(f"{url}@{published.version.number}").compute(scheduler="sync")
    found = table.to_pandas().sort_values("row_id")
    assert found["row_id"].tolist() == expected["row_id"].tolist()
    for name in ("id", "label", "log_density", "max_responsibility"):
        assert found[name].tolist() == expected[name].tolist()
    entry = f"{table.table_uri.removeprefix('file://').rstrip('/')}/_delta_log/{table.version():020}.json"
    with open_input(entry) as file:
        (said,) = filter(None, map(TableOrigin.of_line, file.stream.read().splitlines()))
    assert (said.run_id, said.number) == (published.run_id, published.version.number)


def test_the_table_follows_the_latest_version(data: Path) -> None:
    for turn, k in enumerate((2, 3, 2, 2)):
        published = run(settings(data, k))
        assert published.version.number == min(turn + 1, 3)
        check_holds(published, table_of(data))
    assert table_of(data).version() == 2  # the last command found all done
    assert len(list_versions(open_store(str(data.parent / "out")))) == 3


def test_the_table_is_no_part_of_what_a_run_is(data: Path) -> None:
    plain = run(settings(data, labels={"delta_table": None}))
    published = run(settings(data))
    assert not published.new
    assert published.run_id == plain.run_id
    check_holds(published, table_of(data))


def test_a_command_that_stopped_before_the_table_makes_it_when_given_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gmm_dask.stage.publish.write_table", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings(data))
    assert not (data.parent / "table").exists()
    published = run(settings(data))
    assert not published.new
    check_holds(published, table_of(data))


def test_a_slow_command_does_not_bring_older_labels_back(data: Path) -> None:
    first = run(settings(data, 2))
    second = run(settings(data, 3))
    line = delta_table.write_delta_table(settings(data, 2), first)
    assert line is not None
    assert "later version" in line
    check_holds(second, table_of(data))


def test_labels_of_other_data_replace_the_table_with_their_columns(data: Path) -> None:
    run(settings(data))
    document = {
        "data": {"path": str(data / "0.parquet"), "id_columns": ["id", "x"]},
        "model": str(data.parent / "out"),
        "labels": {"delta_table": str(data.parent / "table"), "responsibilities": True},
        "output": {"path": str(data.parent / "labels")},
    }
    score(settings_from(document, ScoreSettings))
    found = table_of(data).to_pyarrow_table()
    assert found.num_rows == 40
    assert {"x", "responsibilities"} <= set(found.column_names)
    assert DeltaTable(data.parent / "table", version=0).to_pyarrow_table().num_rows == 80


def test_a_damaged_part_never_reaches_the_table(data: Path) -> None:
    published = run(settings(data))
    before = table_of(data).version()
    write_deltalake(table_of(data), table_of(data).to_pyarrow_table(), mode="overwrite")
    part = max((data.parent / "out").rglob("labels/*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(OutputError, match=f"{part.name} is damaged"):
        delta_table.write_delta_table(settings(data), published)
    assert table_of(data).version() == before + 1  # that of the other writer


def origin(number: int, output: str = "out") -> TableOrigin:
    return TableOrigin(output, number, f"run{number}", "0" * 64)


def parts(*values: int) -> list[pa.Table]:
    return [pa.table({"row_id": [value]}) for value in values]


SCHEMA = pa.schema({"row_id": pa.int64()})


def test_of_two_writers_at_once_one_is_told(tmp_path: Path) -> None:
    url = str(tmp_path / "table")
    write_table(url, parts(0), SCHEMA, origin(1))

    def interrupted() -> Any:
        yield from parts(2)
        # In a thread of its own, as the library is in the midst of writing here.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_table, url, parts(3), SCHEMA, origin(3)).result()

    with pytest.raises(
        OutputError, match=r"somebody else wrote to .* at the same moment\. Run again"
    ):
        write_table(url, interrupted(), SCHEMA, origin(2))
    assert DeltaTable(url).to_pyarrow_table()["row_id"].to_pylist() == [3]
    assert write_table(url, parts(2), SCHEMA, origin(2)) is None
    assert write_table(url, parts(2), SCHEMA, origin(2, "another")) == 2


# What is refused before any work


def refused(
    folder: Path, error: type[GmmDaskError], words: str, **sections: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words):
        run(settings(folder, **sections))
    assert not (folder.parent / "out" / "versions").exists()


def test_a_table_of_somebody_else_is_never_overwritten(data: Path) -> None:
    write_deltalake(data.parent / "table", pa.table({"precious": [1]}))
    refused(data, OutputError, "was not made for labels")
    assert table_of(data).to_pyarrow_table().to_pydict() == {"precious": [1]}


def test_a_folder_with_files_is_never_made_a_table(data: Path) -> None:
    (data.parent / "table").mkdir()
    (data.parent / "table" / "precious.txt").write_text("x")
    refused(data, OutputError, "holds files and is no Delta table")
    (data.parent / "file").write_text("x")
    place = {"delta_table": str(data.parent / "file")}
    refused(data, OutputError, "holds files and is no Delta table", labels=place)


def test_a_table_among_the_data_is_refused(data: Path) -> None:
    place = {"delta_table": str(data / "labels")}
    refused(data, SettingsError, r"lies inside of data\.path", labels=place)
    write_deltalake(data.parent / "input", pa.table({"x": [1.0], "y": [1.0], "id": [1]}))
    own = {"delta_table": str(data.parent / "input")}
    refused(data, SettingsError, "inside of", data={"path": own["delta_table"]}, labels=own)


@pytest.mark.parametrize(
    ("path", "table"),
    [
        *(("data", table) for table in ("data", "data/_labels", "", "link", "link/labels")),
        *(("data/*.parquet", table) for table in ("data", "", "link")),
        *(("data/0.parquet", table) for table in ("data", "", "link")),
    ],
)
def test_a_table_at_in_or_around_the_data_is_refused(data: Path, path: str, table: str) -> None:
    (data.parent / "link").symlink_to(data)
    refused(
        data,
        SettingsError,
        r"inside of data\.path, .*, or around it",
        data={"path": str(data.parent / path)},
        labels={"delta_table": str(data.parent / table)},
    )


@pytest.mark.parametrize(
    ("out", "table"),
    [
        *(("out", table) for table in ("out", "out/table", "out/runs", "a/../out")),
        ("lake/out", "lake"),
        *(("s3://b/out", f"s3://b/{table}") for table in ("out", "out/table")),
        ("s3://b/lake/out", "s3://b/lake"),
    ],
)
def test_a_table_at_in_or_around_the_output_is_refused(data: Path, out: str, table: str) -> None:
    out, table = (each if "://" in each else str(data.parent / each) for each in (out, table))
    with pytest.raises(SettingsError, match=r"inside of output\.path, .*, or around it"):
        run(settings(data, output={"path": out}, labels={"delta_table": table}))
    assert not list(data.parent.rglob("_delta_log"))


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        (
            {"labels": {"enabled": False}},
            SettingsError,
            "delta_table needs labels, and enabled: false writes none",
        ),
        ({"output": {"private": True}}, SettingsError, r"output\.private"),
        ({"labels": {"delta_table": "gs://bucket/table"}}, OutputError, "gs:// is not supported"),
        ({"labels": {"delta_table": "/tmp/a%20b"}}, OutputError, "another name"),
        ({"labels": {"delta_table": "/tmp/a\nb"}}, OutputError, "another name"),
        ({"labels": {"delta_table": "/tmp/a[b]"}}, OutputError, "another name"),
    ],
    ids=["no labels", "private", "scheme", "escapes", "line feed", "brackets"],
)
def test_what_cannot_be_is_refused(
    data: Path, sections: dict[str, Any], error: type[GmmDaskError], words: str
) -> None:
    refused(data, error, words, **sections)


def test_without_the_library_it_is_said_what_to_install(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmm_dask.storage.records.delta_output.is_installed", lambda: False)
    refused(data, OutputError, r"pip install 'gmm-dask\[delta\]'")


def test_a_column_that_no_table_holds_is_refused_before_the_fit(data: Path) -> None:
    for file in data.iterdir():
        times = pa.array([dt.time(12)] * 40, pa.time64("us"))
        table = pq.read_table(file).append_column("t", times).append_column("ID", pa.nulls(40))
        pq.write_table(table, file)
    refused(data, DataError, "no type for the column 't', which is time64", labels={"keep": ["t"]})
    refused(data, DataError, "upper and lower case alone", labels={"keep": ["ID"]})


# Types


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([200], pa.uint8()), pa.int16()),
        (pa.array([2**64 - 1], pa.uint64()), pa.decimal128(20, 0)),
        (pa.array([1.5], pa.float16()), pa.float32()),
        (pa.array([1000], pa.timestamp("ns", "Europe/Berlin")), pa.timestamp("us", "UTC")),
        (pa.array([5], pa.timestamp("ms")), pa.timestamp("us")),
        (pa.array([Decimal("1.5")], pa.decimal128(5, 2)), pa.decimal128(5, 2)),
        (pa.array([b"ab"], pa.binary(2)), pa.binary()),
        (pa.array([["a"]], pa.large_list(pa.large_string())), pa.list_(pa.string())),
        (pa.array([{"a": 3}], pa.struct([("a", pa.uint16())])), pa.struct([("a", pa.int32())])),
        (pa.array(["a"]).dictionary_encode(), pa.string()),
        (pa.nulls(1), pa.string()),
        (pa.array([dt.date(2024, 5, 1)]), pa.date32()),
    ],
    ids=str,
)
def test_values_are_the_same_in_the_type_of_the_table(
    tmp_path: Path, array: pa.Array, expected: pa.DataType
) -> None:
    table = pa.table({"c": array})
    schema = delta_schema(table.schema)
    assert schema.field("c").type == expected
    write_table(str(tmp_path / "t"), [table], schema, origin(1))
    (file,) = (tmp_path / "t").glob("*.parquet")
    stored = pq.read_table(file).column("c").to_pylist()
    if pa.types.is_timestamp(expected):
        plain = array.cast(pa.timestamp("us", array.type.tz)).to_pylist()
        assert stored == plain
    else:
        assert stored == array.to_pylist()


def test_moments_of_less_than_a_microsecond_are_not_cut(tmp_path: Path) -> None:
    table = pa.table({"c": pa.array([1001], pa.timestamp("ns"))})
    with pytest.raises(OutputError, match="column 'c' holds a value that timestamp"):
        write_table(str(tmp_path / "t"), [table], delta_schema(table.schema), origin(1))
    assert not DeltaTable.is_deltatable(str(tmp_path / "t"))


def test_a_table_in_a_store(data: Path, service: ObjectService) -> None:
    place = f"s3://{service.bucket()}/lake/labels"
    for k in (2, 3):
        published = run(settings(data, k, labels={"delta_table": place}))
        table = DeltaTable(place, storage_options={"allow_http": "true"})
        check_holds(published, table)
    refused_place = f"s3://{service.bucket()}/other"
    write_deltalake(
        refused_place, pa.table({"precious": [1]}), storage_options={"allow_http": "true"}
    )
    with pytest.raises(OutputError, match="was not made for labels"):
        run(settings(data, labels={"delta_table": refused_place}))
