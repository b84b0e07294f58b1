"""Delta tables whose files alone do not say what rows they have: refused with the remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from gmm_dask.storage.input.listing import table_formats as delta
from gmm_dask.storage.input.planning import plan_dataset
from tests.storage.conftest import problems_of
from tests.storage.delta_tables import actions, active_files, log_entry, rows
from tests.storage.test_delta import values

FEATURE = {"minReaderVersion": 3, "minWriterVersion": 7}


def protocol(*features: str) -> dict[str, Any]:
    names = list(features)
    return {"protocol": FEATURE | {"readerFeatures": names, "writerFeatures": names}}


def with_deletion_vector(table: Path, vector: dict[str, Any], *features: str) -> None:
    add = actions(table, "add")[-1]["add"]
    entry = [protocol(*features)] if features else []
    removed = {"remove": {"path": add["path"], "dataChange": True}}
    log_entry(table, *entry, removed, {"add": add | {"deletionVector": vector}})


INLINE = {
    "storageType": "i",
    "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
    "sizeInBytes": 40,
    "cardinality": 6,
}
IN_A_FILE = {
    "storageType": "u",
    "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
    "offset": 4,
    "sizeInBytes": 40,
    "cardinality": 1,
}


@pytest.mark.parametrize("vector", [INLINE, IN_A_FILE], ids=["inline", "file"])
@pytest.mark.parametrize(
    "features",
    [["deletionVectors"], ["deletionVectors", "vacuumProtocolCheck"], []],
    ids=["alone", "others", "unsaid"],
)
def test_deleted_rows_never_come_back(
    tmp_path: Path, vector: dict[str, Any], features: list[str]
) -> None:
    place = tmp_path / "t"
    write_deltalake(place, rows(1, 2, 3))
    with_deletion_vector(place, vector, *features)
    (line,) = problems_of(place)
    assert str(place) in line
    assert ("deletion vector" in line.lower()) or ("cannot be read as the Delta" in line)
    assert "export" in line
    assert plan_dataset(place, version=0).n_rows == 3


def test_a_vector_that_can_be_read_is_refused_by_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_deltalake(tmp_path / "t", rows(1, 2, 3))
    (file,) = (tmp_path / "t").glob("*.parquet")
    vectors = pa.record_batch(
        {"filepath": [file.as_uri()], "selection_vector": [[True, False, True]]}
    )
    monkeypatch.setattr(DeltaTable, "deletion_vectors", lambda _: iter([vectors]))
    (line,) = problems_of(tmp_path / "t")
    assert f"deleted through deletion vectors (of {file.name}, for one)" in line
    assert "REORG TABLE ... APPLY (PURGE)" in line


@pytest.mark.parametrize(
    "features",
    [
        ["deletionVectors"],
        ["columnMapping"],
        ["timestampNtz"],
        ["typeWidening"],
        ["v2Checkpoint"],
        ["vacuumProtocolCheck"],
    ],
    ids=str,
)
def test_features_that_are_allowed_but_not_in_use_do_not_matter(
    table: Path, features: list[str]
) -> None:
    log_entry(table, protocol(*features))
    assert values(plan_dataset(table)) == [4, 6, 7]


def test_a_table_that_enables_deletion_vectors_is_read_as_long_as_no_file_has_one(
    table: Path,
) -> None:
    (meta,) = actions(table, "metaData")[-1:]
    meta["metaData"]["configuration"] = {"delta.enableDeletionVectors": "true"}
    log_entry(table, protocol("deletionVectors"), meta)
    DeltaTable(table).create_checkpoint()
    assert values(plan_dataset(table)) == [4, 6, 7]
    with_deletion_vector(table, INLINE)
    (line,) = problems_of(table)
    assert "REORG TABLE ... APPLY (PURGE)" in line
    assert "export" in line


@pytest.mark.parametrize("feature", ["variantType", "catalogManaged", "somethingNew"])
def test_features_that_are_not_known_are_refused_by_name(table: Path, feature: str) -> None:
    log_entry(table, protocol(feature))
    (line,) = problems_of(table)
    assert str(table) in line
    assert "export" in line
    assert feature in line or "catalog" in line


@pytest.mark.parametrize("mode", ["name", "id"])
def test_columns_under_other_names_are_refused(table: Path, mode: str) -> None:
    metadata = actions(table, "metaData")[0]["metaData"]
    schema = json.loads(metadata["schemaString"])
    for i, field in enumerate(schema["fields"]):
        physical = {"delta.columnMapping.id": i + 1, "delta.columnMapping.physicalName": f"col-{i}"}
        field["metadata"] = physical
    log_entry(
        table,
        {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}},
        {
            "metaData": metadata
            | {
                "schemaString": json.dumps(schema),
                "configuration": {"delta.columnMapping.mode": mode},
            }
        },
    )
    (line,) = problems_of(table)
    assert f"delta.columnMapping.mode is {mode}" in line
    assert "export" in line


@pytest.mark.parametrize("path", ["../elsewhere.parquet", "/elsewhere.parquet", "s3://b/x.parquet"])
def test_files_elsewhere_are_refused(table: Path, path: str) -> None:
    add = actions(table, "add")[-1]["add"]
    log_entry(table, {"add": add | {"path": path}})
    (line,) = problems_of(table)
    assert "files elsewhere" in line
    assert "deep clone" in line


def broken_entry(table: Path) -> None:
    log_entry(table, {"protocol": 7})


def no_log(table: Path) -> None:
    shutil.rmtree(table / "_delta_log")
    (table / "_delta_log").mkdir()


def missing_entry(table: Path) -> None:
    (table / "_delta_log" / f"{1:020}.json").unlink()


@pytest.mark.parametrize("damage", [broken_entry, no_log, missing_entry])
def test_a_damaged_log_is_refused(table: Path, damage: Callable[[Path], None]) -> None:
    damage(table)
    (line,) = problems_of(table)
    assert line.startswith(f"{table}: cannot be read as the Delta table that it looks like")
    assert "\x1b" not in line
    assert "unknown" not in line


def test_without_the_library_a_table_is_refused_with_what_to_install(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "is_installed", lambda: False)
    (line,) = problems_of(table)
    assert "pip install 'gmm-dask[delta]'" in line
    assert "list of the files that count" in line
    active = [str(table / each.name) for each in active_files(table)]
    assert values(plan_dataset(active)) == [4, 6, 7]
