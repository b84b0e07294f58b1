"""Delta tables: read at one version as the table that it is, or refused with the remedy."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from gmm_dask.errors import DataError, InputError
from gmm_dask.storage.input.listing import table_formats as delta
from gmm_dask.storage.input.parquet.reader import read_table
from gmm_dask.storage.input.plan import Plan
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.object_service import ObjectService
from tests.storage.conftest import problems_of, read_all, write_file
from tests.storage.delta_tables import actions, active_files, log_entry, rows

RNG = np.random.default_rng(0)


def values(plan: Plan) -> list[float]:
    """The first feature of all rows, in order of size."""
    return sorted(read_all(plan)[:, 0].tolist())


def carried(plan: Plan, *names: str) -> pa.Table:
    """Columns as labels have them."""
    return pa.concat_tables([read_table(source, names) for source in sources(plan)])


# Which rows


def test_rows_are_those_of_the_latest_version(table: Path) -> None:
    assert len(list(table.glob("*.parquet"))) == 4
    plan = plan_dataset(table)
    assert values(plan) == [4, 6, 7]
    assert plan.tables == (("", 3),)
    assert plan.to_dict()["tables"] == {"": 3}


@pytest.mark.parametrize(
    ("version", "expected"), [(0, [1, 2, 3]), (1, [4, 5, 6]), (2, [4, 5, 6, 7]), (3, [4, 6, 7])]
)
def test_rows_are_those_of_the_version_that_is_asked_for(
    table: Path, version: int, expected: list[float]
) -> None:
    plan = plan_dataset(table, version=version)
    assert values(plan) == expected
    assert plan.tables == (("", version),)


def test_a_version_that_is_not_there_is_named_with_the_latest(table: Path) -> None:
    (line,) = problems_of(table, version=9)
    assert "has no version 9" in line
    assert "the latest is 3" in line


def test_a_version_is_that_of_one_table(table: Path, tmp_path: Path) -> None:
    plain = write_file(tmp_path / "plain" / "a.parquet", rows(1)).parent
    shutil.copytree(table, tmp_path / "second")
    for path in (plain, [table, tmp_path / "second"], f"{table}/*.parquet"):
        with pytest.raises(DataError, match=r"data\.version|Delta table"):
            plan_dataset(path, version=0)
    (line,) = problems_of(plain, version=0)
    assert "data.version" in line
    assert "Leave it out" in line


def test_a_plan_is_of_its_version_when_the_table_moves_on(table: Path) -> None:
    plan = plan_dataset(table)
    write_deltalake(table, rows(8, 9), mode="overwrite")
    assert values(plan) == [4, 6, 7]
    assert values(plan_dataset(table)) == [8, 9]
    assert plan_dataset(table, version=3).fingerprint == plan.fingerprint


def test_the_version_is_part_of_what_the_data_are(table: Path, tmp_path: Path) -> None:
    before = plan_dataset(table)
    DeltaTable(table).alter.set_table_properties({"delta.logRetentionDuration": "interval 1 days"})
    after = plan_dataset(table)
    assert [each.name for each in after.partitions] == [each.name for each in before.partitions]
    assert after.fingerprint != before.fingerprint
    shutil.copytree(table, tmp_path / "else" / "where")
    assert plan_dataset(tmp_path / "else" / "where").fingerprint == after.fingerprint


def test_a_log_with_a_checkpoint_says_the_same(table: Path) -> None:
    before = plan_dataset(table)
    DeltaTable(table).create_checkpoint()
    for version in range(3):
        (table / "_delta_log" / f"{version:020}.json").unlink()
    assert plan_dataset(table).fingerprint == before.fingerprint
    write_deltalake(table, rows(10), mode="append")
    assert values(plan_dataset(table)) == [4, 6, 7, 10]


def test_vacuumed_files_of_an_old_version_are_named(table: Path) -> None:
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert values(plan_dataset(table)) == [4, 6, 7]
    (line,) = problems_of(table, version=0)
    assert "cannot be read" in line
    assert "VACUUM removes files of old versions: correct data.version" in line


def test_merged_and_compacted_rows_are_read_once(table: Path) -> None:
    change = pa.table({"x": [7.0, 8.0], "y": [0.0, 0.0]})
    merge = DeltaTable(table).merge(change, "t.x = s.x", source_alias="s", target_alias="t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    assert values(plan_dataset(table)) == [4, 6, 7, 8]
    DeltaTable(table).optimize.compact()
    assert values(plan_dataset(table)) == [4, 6, 7, 8]


def test_an_empty_version_holds_no_files(table: Path) -> None:
    DeltaTable(table).delete()
    (line,) = problems_of(table)
    assert "0 files hold no rows" in line


# Partition values are in the log

MOMENT = dt.datetime(2024, 5, 1, 12, 0, 0, 5)


def test_partition_values_are_read_from_the_log(tmp_path: Path) -> None:
    keys = {
        "text": pa.array(["a/b c", "é%=1", None]),
        "number": pa.array([1, None, 3], pa.int32()),
        "day": pa.array([dt.date(2024, 5, 1)] * 3),
        "moment": pa.array([MOMENT] * 3, pa.timestamp("us", "UTC")),
        "flag": pa.array([True, False, None]),
        "price": pa.array([0.1, 1.5, None]),
    }
    write_deltalake(tmp_path / "t", rows(1, 2, 3, **keys), partition_by=list(keys))
    plan = plan_dataset(tmp_path / "t", id_columns=list(keys), features=["x"])
    assert plan.key_columns == tuple(keys)
    found = carried(plan, "x", *keys).sort_by("x")
    for name, expected in keys.items():
        assert found.column(name).type == expected.type
        assert found.column(name).to_pylist() == expected.to_pylist()
    assert plan_dataset(tmp_path / "t").features == ("x", "y")


def test_partition_values_hold_whatever_folders_say(tmp_path: Path) -> None:
    """A log may put files anywhere: folders are for people."""
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2, k=["a", "b"]), partition_by=["k"])
    for each in actions(place, "add"):
        add = each["add"]
        (place / "k=wrong").mkdir(exist_ok=True)
        name = f"k=wrong/{add['partitionValues']['k']}.parquet"
        shutil.copy(place / add["path"], place / name)
        log_entry(place, {"remove": add | {"deletionTimestamp": 0}}, {"add": add | {"path": name}})
    plan = plan_dataset(place, id_columns=["k"])
    assert {each.name for each in plan.partitions} == {"k=wrong/a.parquet", "k=wrong/b.parquet"}
    assert carried(plan, "x", "k").sort_by("x").column("k").to_pylist() == ["a", "b"]


def test_other_partition_values_are_other_data(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2, k=["a", "a"]), partition_by=["k"])
    before = plan_dataset(place).fingerprint
    (entry,) = (place / "_delta_log").glob("*.json")
    entry.write_text(entry.read_text().replace('"k":"a"', '"k":"b"'))
    assert plan_dataset(place, id_columns=["k"]).partitions[0].keys == (("k", "b"),)
    assert plan_dataset(place).fingerprint != before


def test_partition_values_that_are_in_the_files_as_well_must_be_equal(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2, k=[7, 7]), partition_by=["k"])
    (file,) = place.rglob("*.parquet")
    write_file(file, rows(1, 2, k=pa.array([7, 7], pa.int64())))
    assert plan_dataset(place, id_columns=["k"]).n_rows == 2
    write_file(file, rows(1, 2, k=pa.array([7, 8], pa.int64())))
    (line,) = problems_of(place)
    assert "column 'k': holds '8', but its folder is that of k='7'" in line


# Columns that came later


def test_a_file_that_is_older_than_a_column_has_missing_values_there(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2))
    new = rows(3, 4, z=[0.5, 0.25], id=["a", "b"])
    write_deltalake(place, new, mode="append", schema_mode="merge")
    plan = plan_dataset(place, features=["x", "z"], id_columns=["id", "z"], missing="em")
    assert carried(plan, "x", "z", "id").sort_by("x").to_pydict() == {
        "x": [1, 2, 3, 4],
        "z": [None, None, 0.5, 0.25],
        "id": [None, None, "a", "b"],
    }
    found = read_all(plan)
    assert np.array_equal(
        found[np.argsort(found[:, 0])], [[1, np.nan], [2, np.nan], [3, 0.5], [4, 0.25]], True
    )
    alone = plan_dataset(place, features=["z"], missing="drop")
    assert np.isnan(read_all(alone)).sum() == 2
    (line,) = problems_of(place, features=["z"])
    assert "column 'z': 2 nulls, as the file is older than the column" in line
    assert plan_dataset(place, features=["x"]).n_rows == 4
    write_file(place / "stray.parquet", rows(9))  # no part of the table
    assert plan_dataset(place, features=["x"]).n_rows == 4


def test_a_column_that_the_table_has_not_is_none_of_its_files(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2, k=["a", "b"]), partition_by=["k"])
    for file in place.rglob("*.parquet"):
        (key,) = (part.partition("=")[2] for part in file.parts if part.startswith("k="))
        x = 1.0 if key == "a" else 2.0
        write_file(file, rows(x, dropped=[9.0], K=["other"], k=[key]))
    plan = plan_dataset(place, id_columns=["k"])
    assert plan.features == ("x", "y")
    assert carried(plan, "x", "k").sort_by("x").column("k").to_pylist() == ["a", "b"]
    for name in ("dropped", "K"):
        (line,) = problems_of(place, features=["x", name])
        assert f"no file has a column {name!r}" in line


def test_a_column_in_other_letters_is_no_missing_one(tmp_path: Path) -> None:
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2, z=[0.5, 0.25]))
    (file,) = place.glob("*.parquet")
    write_file(file, rows(1, 2, Z=[0.5, 0.25]))
    for features in (["x", "z"], ["x"], None):
        (line,) = problems_of(place, features=features, missing="em")
        assert line.startswith(file.name)
        assert "a column 'Z' where the table has 'z'" in line


# What plain Parquet would get wrong


def test_a_name_that_the_library_misreads_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "x y", rows(1))
    shutil.copytree(tmp_path / "x y", tmp_path / "x%20y")
    assert plan_dataset(tmp_path / "x y").n_rows == 1
    (line,) = problems_of(tmp_path / "x%20y")
    assert "Rename the folder" in line


@pytest.mark.parametrize("name", ["a b", "100%", "a#b", "a?b", "größe", "日本", "[x]", "k=1"])
def test_any_other_name_will_do(tmp_path: Path, name: str) -> None:
    write_deltalake(tmp_path / "t", rows(1, k=["a%20b/c"]), partition_by=["k"])
    shutil.copytree(tmp_path / "t", tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / name)
    for place in (tmp_path / name, tmp_path / "link"):
        plan = plan_dataset(place, id_columns=["k"])
        assert carried(plan, "k").column("k").to_pylist() == ["a%20b/c"]


# Among other places


def test_tables_and_folders_are_one_dataset(table: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    write_deltalake(second, rows(20, 21))
    write_file(tmp_path / "plain" / "a.parquet", rows(30))
    plan = plan_dataset([table, second, tmp_path / "plain"])
    assert values(plan) == [4, 6, 7, 20, 21, 30]
    assert plan.tables == (("second", 0), ("table", 3))


def test_files_are_left_out_of_a_table_as_asked(table: Path) -> None:
    names = sorted(map(str, active_files(table)))
    assert plan_dataset(table, ignore=[names[0]]).n_ignored == 1


def test_partition_columns_and_folders_above_are_keys_together(tmp_path: Path) -> None:
    for region in ("eu", "us"):
        place = tmp_path / f"region={region}" / "t"
        write_deltalake(place, rows(1, day=[7]), partition_by=["day"])
    plan = plan_dataset(f"{tmp_path}/region={{eu,us}}/t", id_columns=["region", "day"])
    assert carried(plan, "region", "day").to_pydict() == {"region": ["eu", "us"], "day": [7, 7]}


# In an object store


def test_a_table_in_a_store_is_read_at_its_version(service: ObjectService) -> None:
    place = f"s3://{service.bucket()}/lake/my table"
    options = {"allow_http": "true"}
    write_deltalake(place, rows(1, 2, k=["a b", None]), partition_by=["k"], storage_options=options)
    write_deltalake(
        place, rows(3, k=["c/d"]), mode="overwrite", partition_by=["k"], storage_options=options
    )
    plan = plan_dataset(place, id_columns=["k"])
    assert values(plan) == [3]
    assert carried(plan, "k").column("k").to_pylist() == ["c/d"]
    old = plan_dataset(place, version=0, id_columns=["k"])
    assert carried(old, "x", "k").sort_by("x").column("k").to_pylist() == ["a b", None]
    assert "Delta table" in problems_of(f"{place}/k=c%2Fd")[0]


def test_a_store_that_fails_is_no_fault_of_the_table(
    service: ObjectService, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"s3://{service.bucket()}/t"
    write_deltalake(place, rows(1), storage_options={"allow_http": "true"})
    monkeypatch.setattr(delta, "storage_options", lambda _: {})  # http is not allowed
    with pytest.raises(InputError, match="healthy") as caught:
        plan_dataset(place)
    assert "\x1b" not in str(caught.value)
