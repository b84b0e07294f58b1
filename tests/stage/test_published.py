"""What was published, when something happened to it since: read whole, made again, or named."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask.dataframe.utils import assert_eq

from gmm_dask import load_model, read_labels
from gmm_dask.errors import OutputError
from gmm_dask.stage.fit import fit
from gmm_dask.stage.job import plan
from gmm_dask.stage.labels.labelling import label
from gmm_dask.stage.outputs import Published, _LabelPart, _read_part, label_parts, open_output
from gmm_dask.stage.publish import publish
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    frame_of,
    list_versions,
    open_store,
    parquet_bytes,
    read_manifest,
    verify,
)
from tests.stage.conftest import IRIS, MakeSettings


@pytest.fixture
def published(iris_settings: MakeSettings) -> Published:
    return run(iris_settings())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


LARGE = 2**60 + 1  # float64 has no such integer


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ([LARGE, None], pa.int64(), "Int64"),
        ([2**64 - 1, None], pa.uint64(), "UInt64"),
        ([True, None], pa.bool_(), "boolean"),
        ([1, 10**9], pa.time64("ns"), "time64[ns][pyarrow]"),
        ([0, 10**7], pa.date32(), "date32[day][pyarrow]"),
        ([[1], [10**9]], pa.list_(pa.time64("ns")), "list<element: time64[ns]>[pyarrow]"),
        ([[LARGE, None], []], pa.list_(pa.int64()), "list<element: int64>[pyarrow]"),
        ([[LARGE], None], pa.list_(pa.int64()), "object"),
        ([[[1, None]], []], pa.list_(pa.list_(pa.int64())), "[pyarrow]"),
        ([{"k": LARGE}, None], pa.struct([("k", pa.int64())]), "struct<k: int64>[pyarrow]"),
        ([{"k": 1000}, None], pa.struct([("k", pa.timestamp("ns"))]), "[pyarrow]"),
        ([[1, None], None], pa.list_(pa.timestamp("ns", "Asia/Tokyo")), "[pyarrow]"),
        ([[("a", LARGE), ("b", None)], []], pa.map_(pa.string(), pa.int64()), "[pyarrow]"),
        ([LARGE, LARGE], pa.int64(), "int64"),
        ([True, False], pa.bool_(), "bool"),
        ([0, 20000], pa.date32(), "object"),
    ],
    ids=str,
)
def test_what_is_read_of_labels_is_what_was_kept(
    values: list[Any], type_: pa.DataType, expected: str
) -> None:
    table = pa.table({"a": [1.5, 2.5], "id": pa.array(values, type_), "b": ["x", None]})
    frame = frame_of(parquet_bytes(table))
    assert frame.columns.tolist() == ["a", "id", "b"]
    assert frame["id"].dtype.name == expected or str(frame["id"].dtype).endswith(expected)
    back = pa.Array.from_pandas(frame["id"])
    back = back.combine_chunks() if isinstance(back, pa.ChunkedArray) else back
    assert back.cast(type_) == pa.array(values, type_)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_labels_of_a_damaged_part_are_never_read(
    damage: Callable[[Path], object], published: Published, tmp_path: Path
) -> None:
    part = Path(label_parts(str(tmp_path / "out"))[2])
    labels = read_labels(str(tmp_path / "out"))
    damage(part)
    with pytest.raises(OutputError, match=part.name):
        labels.compute(scheduler="sync")
    assert len(labels.partitions[0].compute(scheduler="sync")) == 50


def test_labels_can_be_read_by_column(published: Published, tmp_path: Path) -> None:
    labels = read_labels(str(tmp_path / "out"))
    assert labels["label"].value_counts().sum().compute(scheduler="sync") == 150
    assert list(labels[["row_id", "label"]].compute(scheduler="sync").columns) == [
        "row_id",
        "label",
    ]


@pytest.mark.parametrize("name", ["labels", "report.html", "metrics.json", "model.json"])
def test_a_finished_run_with_a_damaged_file_says_so_when_run_again(
    name: str, published: Published, iris_settings: MakeSettings
) -> None:
    path = Path(published.path("folder")) / name
    path = next(path.iterdir()) if path.is_dir() else path
    flip(path)
    with pytest.raises(OutputError, match=rf"(?s)version 1, and is damaged: .*{path.name}.*away"):
        run(iris_settings())


@pytest.mark.parametrize(("what", "number"), [("folder", 2), ("MANIFEST.json", 1)])
def test_a_run_that_was_moved_away_can_be_run_again(
    what: str, number: int, published: Published, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = Path(published.path("folder"))
    shutil.move(folder if what == "folder" else folder / what, tmp_path / "elsewhere")
    again = run(iris_settings())
    assert again.new
    assert again.version.number == number  # the same manifest is the same version
    assert verify(again.folder.store, again.version) == []
    assert not run(iris_settings()).new
    assert open_output(str(tmp_path / "out")).version == again.version


def test_a_manifest_that_no_version_names_is_told_with_both_ways_out(
    published: Published, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    """As where a run is done again, its folder being gone, and killed before its version."""
    folder, entry = Path(published.path("folder")), tmp_path / "out/versions/00000002.json"
    shutil.rmtree(folder)
    run(iris_settings())
    entry.unlink()
    with pytest.raises(OutputError, match=rf"Restore it from a copy\. Or move {folder} away"):
        run(iris_settings())
    shutil.rmtree(folder)
    assert run(iris_settings()).version.number == 2


def test_a_folder_that_came_back_is_published_again(
    published: Published, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = Path(published.path("folder"))
    shutil.move(folder, tmp_path / "elsewhere")
    assert run(iris_settings()).version.number == 2
    shutil.rmtree(folder)
    shutil.move(tmp_path / "elsewhere", folder)
    with pytest.raises(OutputError, match="not the manifest that the version names"):
        open_output(str(tmp_path / "out"))  # version 2 has lost its files
    again = run(iris_settings())
    assert (again.version.number, again.earlier) == (3, published.version)
    assert again.version.manifest_sha256 == published.version.manifest_sha256
    assert open_output(str(tmp_path / "out")).version == again.version


@pytest.mark.parametrize("restore", [shutil.move, shutil.copy])
def test_when_a_lost_partition_is_restored_readers_see_its_rows_again(
    restore: Callable[[Path, Path], object], iris_settings: MakeSettings, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", str(tmp_path / "out")
    shutil.copytree(IRIS, data)
    lost = next((data / "species=virginica").glob("*.parquet"))
    settings = iris_settings(data={"path": str(data)})
    whole = run(settings)
    shutil.move(lost, tmp_path / "kept.parquet")
    assert run(settings).version.number == 2
    assert len(read_labels(out)) == 150 - pq.read_metadata(tmp_path / "kept.parquet").num_rows
    restore(tmp_path / "kept.parquet", lost)
    again = run(settings)
    assert (again.version.number, again.run_id, again.earlier) == (3, whole.run_id, whole.version)
    assert len(read_labels(out)) == 150
    assert load_model(out).sha256 == whole.model.sha256
    assert not run(settings).new


def test_a_damaged_entry_hides_no_other_version(
    published: Published, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(iris_settings(fit={"n_components": 2}))
    out = str(tmp_path / "out")
    entry = tmp_path / "out" / "versions" / "00000002.json"
    flip(entry)
    assert load_model(f"{out}@1").parameters.n_components == 3
    assert len(label_parts(f"{out}@1")) == 4
    with pytest.raises(OutputError, match=r"00000002\.json .*damaged.*move it away"):
        load_model(f"{out}@2")
    with pytest.raises(OutputError, match=r"00000002\.json"):
        load_model(out)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"00000002\.json"):  # and before any work
        run(iris_settings(fit={"n_components": 1}))
    assert sorted(tmp_path.rglob("*")) == before
    entry.unlink()
    assert load_model(out).parameters.n_components == 3


@pytest.mark.parametrize("digit", ["manifest_sha256", "run_id", "rows"])
def test_a_changed_entry_is_blamed_and_not_the_manifest(
    digit: str, published: Published, tmp_path: Path
) -> None:
    entry = tmp_path / "out" / "versions" / "00000001.json"
    text = entry.read_text()
    at = text.index(digit) + len(digit) + (2 if digit == "rows" else 3)
    entry.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
    with pytest.raises(OutputError, match=r"00000001\.json is damaged: its checksum") as caught:
        open_output(str(tmp_path / "out"))
    assert "MANIFEST" not in str(caught.value)


# --- times -----------------------------------------------------------------------------------


def publish_at(settings: Settings, *times: str) -> Published:
    """A whole run that reads these times off the clock."""
    job, clock = plan(settings), iter(times)
    fitted = fit(job)
    return publish(job, fitted, label(job, fitted.model), now=lambda: next(clock))


def test_the_time_of_publishing_is_in_every_record_and_in_no_bit_of_model_and_labels(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    years = (2031, 1969)
    one, two = (
        publish_at(
            iris_settings(output={"path": str(tmp_path / f"out-{year}")}),
            f"{year}-02-03T04:05:06.000Z",
            f"{year}-02-03T04:05:09.000Z",
        )
        for year in years
    )
    assert one.run_id == two.run_id
    for name in one.folder.list(""):
        if name.startswith("labels/") or name in ("model.json", "parameters.parquet"):
            assert one.folder.get(name) == two.folder.get(name), name
    for year, published in zip(years, (one, two), strict=True):
        assert published.version.published == f"{year}-02-03T04:05:09.000Z"
        manifest = read_manifest(published.folder.store, published.version)
        assert manifest["published"] == f"{year}-02-03T04:05:06.000Z"
        assert published.metrics["published"] == manifest["published"]
        report = published.folder.get("report.html").decode()
        facts = re.sub(r"<[^>]*>", " ", report.partition("</header>")[0])
        assert f"Published {year}-02-03 04:05:06 UTC" in " ".join(facts.split())


def test_publishing_begins_once_and_a_restart_keeps_that_time(iris_settings: MakeSettings) -> None:
    begun, later = "2026-08-01T12:00:00.000Z", "2026-08-02T12:00:00.000Z"
    with pytest.raises(StopIteration):
        publish_at(iris_settings(), begun)  # killed when the entry was to be made
    again = publish_at(iris_settings(), later, later)
    assert again.metrics["published"] == begun
    assert read_manifest(again.folder.store, again.version)["published"] == begun
    assert "2026-08-01" in again.folder.get("report.html").decode()
    assert again.version.published == later


def test_a_restart_whose_metrics_were_damaged_meanwhile_names_them(
    iris_settings: MakeSettings,
) -> None:
    with pytest.raises(StopIteration):
        publish_at(iris_settings(), "2026-08-01T12:00:00.000Z")
    path = Path(plan(iris_settings()).folder.path("metrics.json"))
    path.write_text('{"published":"some day"}')
    with pytest.raises(OutputError, match=r"metrics\.json is damaged.*Move it away and run again"):
        run(iris_settings())
    path.unlink()
    Path(path.parent / "MANIFEST.json").unlink()
    assert run(iris_settings()).version.number == 1


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text(path.read_text().replace('"n_rows":', '"n_row":')),
        lambda path: path.write_text(path.read_text().replace('"n_dropped":0', '"n_dropped":5')),
    ],
)
def test_a_damaged_receipt_is_no_receipt(
    damage: Callable[[Path], object], iris_settings: MakeSettings, tmp_path: Path
) -> None:
    class Stop(Watcher):
        def phase(self, name: str, detail: str) -> None:
            if name == "publish":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(iris_settings(), Stop())
    assert list_versions(open_store(str(tmp_path / "out"))) == []
    for receipt in (tmp_path / "out").rglob("receipts/*.json"):
        damage(receipt)
    published = run(iris_settings())
    assert published.metrics["n_used"] == 150
    assert sum(published.metrics["n_labelled"]) == 150
    assert verify(published.folder.store, published.version) == []


# --- labels belong to their model ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 49}, "does not hold exactly the 49 rows from 50 on"),
        ({"first_row": 51}, "does not hold exactly the 50 rows from 51 on"),
        ({"model_sha256": "0" * 64}, "that of the run is 0{16}"),
    ],
)
def test_a_part_of_other_rows_or_of_another_model_is_never_read(
    change: dict[str, Any], said: str, published: Published
) -> None:
    document = json.loads((Path(published.path("folder")) / "MANIFEST.json").read_text())
    part = _LabelPart.of(published.folder, document["labels"][1], document)
    assert len(_read_part(part)) == 50
    with pytest.raises(OutputError, match=rf"part-00001.* is damaged: .*{said}"):
        _read_part(replace(part, **change))


def test_labels_declare_the_types_that_they_have(tmp_path: Path) -> None:
    kept = {
        "whole": pa.array([*range(19), None]),
        "flag": pa.array([*[True] * 19, None]),
        "sure": pa.array([True] * 20),
        "count": pa.array(range(20), pa.uint8()),
        "text": pa.array(["a"] * 20),
        "day": pa.array([dt.date(2024, 5, 1)] * 20),
        "time": pa.array([dt.datetime(2024, 5, 1)] * 20, pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.5")] * 20),
        "kind": pa.array(["a", "b"] * 10).dictionary_encode(),
        "parts": pa.array([[1, 2]] * 20),
        "nothing": pa.nulls(20),
    }
    table = pa.table({"x": np.arange(20.0) ** 2} | kept)
    pq.write_table(table, tmp_path / "a.parquet")
    document = {
        "data": {"path": str(tmp_path / "a.parquet"), "features": ["x"]},
        "fit": {"n_components": 2},
        "labels": {"keep": list(kept), "responsibilities": True},
        "output": {"path": str(tmp_path / "out")},
    }
    run(settings_from(document))
    labels = read_labels(str(tmp_path / "out"))
    found = labels.compute(scheduler="sync")
    assert labels.dtypes.astype(str).to_dict() == found.dtypes.astype(str).to_dict()
    assert list(labels.columns) == list(found.columns)
    assert_eq(labels.index, found.index)


def test_a_first_part_that_is_no_parquet_is_damaged(published: Published, tmp_path: Path) -> None:
    for damage in (lambda part: part.write_bytes(b"torn"), Path.unlink, Path.mkdir):
        part = Path(label_parts(str(tmp_path / "out"))[0])
        damage(part)
        with pytest.raises(OutputError, match=part.name):
            read_labels(str(tmp_path / "out"))
