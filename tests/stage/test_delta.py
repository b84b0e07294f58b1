"""The stage over a Delta table: the run is of one version of it, whatever becomes of the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.schema import Field, PrimitiveType

from gmm_dask import GaussianMixture, read_labels
from gmm_dask.errors import DataError, GmmDaskError
from gmm_dask.stage.report import tables
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.stage.watch import Watcher


def rows(n: int, seed: int, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) + 8 * rng.integers(0, 2, n)[:, None]
    return pa.table({"x": x[:, 0], "y": x[:, 1], "id": np.arange(n) + 1000 * seed, **columns})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Version 0 has 50 rows; version 1 has 80 others in their place, in two partitions."""
    place = tmp_path / "table"
    write_deltalake(place, rows(50, 1, day=["a"] * 50), partition_by=["day"])
    day = ["a"] * 40 + ["b"] * 40
    write_deltalake(place, rows(80, 2, day=day), mode="overwrite", partition_by=["day"])
    return place


def settings(table: Path, out: str = "out", **sections: dict[str, Any]) -> Any:
    document: dict[str, dict[str, Any]] = {
        "data": {"path": str(table), "features": ["x", "y"], "id_columns": ["id", "day"]},
        "fit": {"n_components": 2},
        "output": {"path": str(table.parent / out)},
    }
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    return settings_from(document)


def ids(out: Path) -> list[int]:
    return sorted(read_labels(str(out)).compute(scheduler="sync")["id"].tolist())


def test_a_run_is_of_the_latest_version_and_says_so(table: Path) -> None:
    heard: list[str] = []

    class Ear(Watcher):
        def detail(self, message: str) -> None:
            heard.append(message)

    published = run(settings(table), Ear())
    labels = read_labels(str(table.parent / "out")).compute(scheduler="sync")
    assert sorted(labels["id"]) == list(range(2000, 2080))
    assert labels["day"].value_counts().to_dict() == {"a": 40, "b": 40}
    assert published.metrics["tables"] == {"": 1}
    about = json.loads(Path(published.path("folder"), "run.json").read_text())
    assert about["plan"]["tables"] == {"": 1}
    assert "Delta table: version 1." in heard
    assert not run(settings(table, data={"version": 1})).new  # the same run, however it was named


def test_the_report_names_the_version(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "gmm_dask.stage.publish.render_report",
        lambda data: seen.append(tables.input_lines(data)) or "<html></html>",
    )
    run(settings(table))
    assert ("Delta table", "version 1") in seen[0]


def test_an_old_version_is_another_run_with_its_own_rows(table: Path) -> None:
    latest = run(settings(table))
    old = run(settings(table, data={"version": 0}))
    assert old.run_id != latest.run_id
    assert ids(table.parent / "out") == list(range(1000, 1050))
    assert old.metrics["n_rows"] == 50


def test_a_table_that_moves_on_during_a_run_changes_nothing(table: Path) -> None:
    class Mover(Watcher):
        def phase(self, name: str, detail: str) -> None:
            if name == "label":
                write_deltalake(table, rows(9, 3, day=["c"] * 9), mode="overwrite")

    expected = run(settings(table, "quiet"))
    published = run(settings(table), Mover())
    assert DeltaTable(table).version() == 2
    assert published.run_id == expected.run_id
    assert published.model.sha256 == expected.model.sha256
    assert ids(table.parent / "out") == list(range(2000, 2080))
    again = run(settings(table, data={"version": 1}))
    assert not again.new
    assert run(settings(table)).metrics["tables"] == {"": 2}


def test_files_that_vacuum_takes_away_during_a_run_are_an_error(table: Path) -> None:
    class Sweeper(Watcher):
        def phase(self, name: str, detail: str) -> None:
            if name == "fit":
                write_deltalake(table, rows(9, 3, day=["c"] * 9), mode="overwrite")
                DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)

    with pytest.raises(GmmDaskError, match="it is gone"):
        run(settings(table), Sweeper())
    assert not (table.parent / "out" / "versions").exists()


def test_files_of_a_table_that_are_named_one_by_one_are_read_with_a_caution(table: Path) -> None:
    warned: list[str] = []

    class Ear(Watcher):
        def warn(self, message: str) -> None:
            warned.append(message)

    files = sorted(str(file) for file in table.rglob("*.parquet"))
    published = run(settings(table, data={"path": files, "version": None}), Ear())
    assert published.metrics["n_rows"] == 130  # of all versions
    assert any(f"whatever the log of the Delta table {table} says" in line for line in warned)
    assert f"Delta table {table}" in published.metrics["caution"]


def test_a_column_that_no_file_has_is_left_out_with_a_caution(tmp_path: Path) -> None:
    place = tmp_path / "table"
    write_deltalake(place, rows(50, 1))
    DeltaTable(place).alter.add_columns([Field("z", PrimitiveType("double"), True)])
    published = run(settings(place, data={"features": None, "id_columns": ["id"]}))
    assert published.model.feature_names == ("x", "y")
    caution = "Column z holds no value in any file and is no feature."
    assert published.metrics["caution"] == caution


def test_an_output_in_the_table_is_refused(table: Path) -> None:
    with pytest.raises(GmmDaskError, match=r"lies inside of data\.path"):
        run(settings(table, "table/out"))


def test_the_class_reads_a_table_too(tmp_path: Path) -> None:
    place = tmp_path / "table"
    for n, seed in ((50, 1), (80, 2)):
        day = rows(n, seed, day=["a"] * n).drop_columns("id")
        write_deltalake(place, day, mode="overwrite", partition_by=["day"])
    fitted = GaussianMixture(2).fit(str(place))
    assert fitted.feature_names_in_.tolist() == ["x", "y"]
    assert len(fitted.predict(str(place))) == 80
    with pytest.raises(DataError, match="inside of the Delta table"):
        GaussianMixture(2).fit(f"{place}/day=a")
