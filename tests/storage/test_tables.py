"""The folders of tables of other formats are no folders of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmm_dask.storage.input.inputs import Problems
from gmm_dask.storage.input.listing import list_files
from tests.object_service import ObjectService
from tests.storage.lakes import BucketLake, FolderLake, Lake
from tests.storage.test_listing import names, problem

TABLES = {
    "Delta": ["_delta_log/00000000000000000000.json"],
    "Hudi": [".hoodie/hoodie.properties"],
    "Iceberg": ["metadata/v1.metadata.json"],
    "Iceberg of a catalogue": ["metadata/00001-2f2c.metadata.json", "metadata/snap-1.avro"],
    "Iceberg with its files packed": ["metadata/v1.metadata.json.gz"],
    "Paimon": ["schema/schema-0", "snapshot/LATEST", "manifest/manifest-1-0"],
    "Lance": ["_versions/1.manifest", "_transactions/0-1.txn", "data/1.lance"],
    "Spark streaming": ["_spark_metadata/0"],
}


# Each request to a bucket takes its time, and no format is told there in a way of its own.
@pytest.mark.parametrize(
    ("lake", "kind"),
    [*(("folder", kind) for kind in TABLES), ("bucket", "Iceberg of a catalogue")],
    indirect=["lake"],
)
def test_a_table_is_no_folder_of_files(lake: Lake, kind: str) -> None:
    lake.put(*(f"lake/t/{name}" for name in TABLES[kind]))
    lake.put("lake/t/k=1/old.parquet", "lake/t/k=1/new.parquet", "lake/other/a.parquet")
    word = f"{kind.partition(' of ')[0].partition(' with ')[0]} table"
    for path in [
        "lake/t",
        "lake/t/",
        "lake/t/k=1",
        "lake/t/k=1/*.parquet",
        "lake/t/*/*.parquet",
        "lake/t/**/*.parquet",
        "lake/*/k=1/*",
        "lake/**/*.parquet",
        "lake/*",
        "lake/{t,other}",
        "lake",
        "",
    ]:
        line = problem(f"{lake.root}/{path}" if path else lake.root)
        assert word in line, path
        assert f"{lake.root}/lake/t" in line, path
        assert "list of the files that count" in line, path
    old, new = (f"{lake.root}/lake/t/k=1/{name}.parquet" for name in ("old", "new"))
    assert names(new) == ["new.parquet"]
    assert names(old, new) == ["new.parquet", "old.parquet"]
    caution = list_files([old, new], Problems()).caution
    assert caution is not None
    assert f"{word} {lake.root}/lake/t" in caution
    assert list_files(f"{lake.root}/lake/other", Problems()).caution is None
    assert names(f"{lake.root}/lake/t/k=1/{{old,new}}.parquet") == ["new.parquet", "old.parquet"]
    assert names(f"{lake.root}/lake/other") == ["a.parquet"]
    assert word in problem(f"{lake.root}/lake/other", f"{lake.root}/lake/t/k=1")


UUID = "0197c3a2-7d1e-7b11-8c52-3f0a9d4e6b21"


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("Hive ACID", "base_0000002/000000_0"),
        ("Hive ACID", "delta_0000003_0000003_0000/000000_0"),
        ("Hive ACID", "delta_3_3/a.parquet"),
        ("Hive ACID", "delete_delta_0000004_0000004/000000_0"),
        ("DuckLake", f"ducklake-{UUID}.parquet"),
        ("DuckLake", f"k=2/ducklake-{UUID}-delete.parquet"),
    ],
    ids=str,
)
def test_a_table_is_known_by_what_its_files_are_called(lake: Lake, kind: str, inside: str) -> None:
    lake.put(f"lake/t/{inside}", "lake/other/a.parquet")
    folder = f"/{inside}".rpartition("/")[0]
    for path in ("lake/t", f"lake/t{folder}", f"lake/t{folder}/*", "lake", "lake/**"):
        line = problem(f"{lake.root}/{path}")
        assert f"{kind} table" in line, path
        assert f"{lake.root}/lake/t" in line, path
    assert names(f"{lake.root}/lake/t/{inside}") == [inside.rpartition("/")[2]]
    assert names(f"{lake.root}/lake/other") == ["a.parquet"]


@pytest.mark.parametrize(
    "marks",
    [
        [f"_{step}_{job}" for step in ("started", "committed") for job in (11, 12)],
        ["_started_11", "_started_12", "_committed_12"],
    ],
    ids=["two jobs", "one that failed"],
)
def test_jobs_of_databricks_may_have_replaced_files(lake: Lake, marks: list[str]) -> None:
    lake.put(*(f"lake/t/k=1/{name}" for name in ("old.parquet", "new.parquet", *marks)))
    for path in ("lake/t", "lake/t/k=1", "lake/t/k=1/*.parquet", "lake"):
        line = problem(f"{lake.root}/{path}")
        assert line.startswith(f"{lake.root}/lake/t/k=1: is a Databricks table"), path


def test_names_that_are_almost_those_of_tables_make_none(lake: Lake) -> None:
    plain = ["base_2/a.parquet", "delta_1/a.parquet", "ducklake-1.parquet", "schema/a.parquet"]
    lake.put(*(f"t/{name}" for name in plain))
    lake.put("t/_versions/a.parquet", "t/_started_11", "t/_committed_11", "t/_SUCCESS")
    assert names(f"{lake.root}/t") == sorted(plain)


def test_a_partition_that_a_link_leads_to_is_part_of_its_table(tmp_path: Path) -> None:
    FolderLake(tmp_path).put("t/_delta_log/0.json", "t/k=1/a.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "t" / "k=1")
    assert "Delta table" in problem(f"{tmp_path}/link")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "k=1").symlink_to(tmp_path / "t" / "k=1")
    assert "Delta table" in problem(f"{tmp_path}/data")


def test_a_folder_named_metadata_makes_no_table(lake: Lake) -> None:
    lake.put("t/metadata/a.parquet", "t/b.parquet")
    assert names(f"{lake.root}/t") == ["b.parquet", "metadata/a.parquet"]


def test_what_must_not_be_looked_at_above_is_taken_for_a_folder(
    bucket: BucketLake, service: ObjectService
) -> None:
    bucket.put("a/b/c.parquet")

    def spoil(request: dict[str, Any], carry_out: Any) -> Any:
        from tests.object_service import failure

        asked = request["PATH_INFO"] + request["QUERY_STRING"]
        above = any(mark in asked for mark in ("_delta_log", ".hoodie", "metadata"))
        return failure("403 Forbidden", "AccessDenied") if above else carry_out()

    with service.spoilt(spoil):
        assert names(f"{bucket.root}/a/b") == ["c.parquet"]
