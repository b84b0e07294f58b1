"""The stage with its data, its model and its output in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gmm_dask import load_model, read_labels
from gmm_dask.command.cli import app
from gmm_dask.errors import DataError, InputChangedError, SettingsError
from gmm_dask.stage import publish
from gmm_dask.stage.job import plan
from gmm_dask.stage.lineage.history import history
from gmm_dask.stage.outputs import label_parts, open_output
from gmm_dask.stage.publish import promote
from gmm_dask.stage.report import tables
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import open_store, verify
from gmm_dask.storage.input.listing import would_list
from tests.object_service import SECRET, ObjectService, failure, files

ROOT = Path(__file__).parents[2]
IRIS = ROOT / "examples" / "iris"
ROWS = 150


@pytest.fixture
def bucket(service: ObjectService) -> str:
    """A bucket with the Iris data below `data/`."""
    name = service.bucket()
    for file in sorted(IRIS.rglob("*.parquet")):
        key = file.relative_to(IRIS).as_posix()
        files().pipe_file(f"{name}/data/{key}", file.read_bytes())
    return name


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes a second to draw, and few of these tests are about it."""
    monkeypatch.setattr(publish, "render_report", lambda data: f"<html>{data.run_id}</html>")


def settings(bucket: str, **changes: Any) -> Any:
    document: dict[str, Any] = {
        "data": {"path": f"s3://{bucket}/data", "id_columns": ["flower"]},
        "fit": {"n_components": 3},
        "output": {"path": f"s3://{bucket}/out"},
    }
    return settings_from(
        {key: document.get(key, {}) | changes.get(key, {}) for key in {*document, *changes}}
    )


def objects(bucket: str) -> dict[str, Any]:
    found = files().find(bucket, detail=True)
    return {key: (info["ETag"], info["LastModified"]) for key, info in found.items()}


def put_rows(place: str, x: np.ndarray) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"x": x})
    options = {"row_group_size": 4, "compression": "none", "use_dictionary": False}
    pq.write_table(table, sink, write_statistics=False, **options)
    files().pipe_file(place, sink.getvalue().to_pybytes())


def test_a_run_reads_and_publishes_there_and_does_nothing_twice(
    bucket: str, no_pictures: None
) -> None:
    elsewhere = {"path": f"s3://{bucket}/elsewhere"}
    local = plan(settings(bucket, data={"path": str(IRIS)}, output=elsewhere))
    published = run(settings(bucket))
    assert published.path("model").startswith(f"s3://{bucket}/out/runs/")
    assert published.run_id == local.run_id  # where the data lie makes no other data
    assert verify(published.folder.store, published.version) == []
    labels = read_labels(f"s3://{bucket}/out").compute()
    assert labels["row_id"].tolist() == list(range(ROWS))
    assert labels["flower"].nunique() == ROWS
    before = objects(bucket)
    assert not run(settings(bucket)).new
    assert objects(bucket) == before


def test_an_earlier_run_there_is_returned_to_promoted_and_listed(
    bucket: str, no_pictures: None
) -> None:
    out = f"s3://{bucket}/out"
    for k in (2, 1):
        run(settings(bucket, fit={"n_components": k}))
    before = objects(bucket)
    assert run(settings(bucket, fit={"n_components": 2})).version.number == 3
    assert load_model(out).parameters.n_components == 2
    assert promote(f"{out}@2").version.number == 4
    assert load_model(out).parameters.n_components == 1
    changed = {key for key, state in objects(bucket).items() if before.get(key) != state}
    names = {key.removeprefix(f"{bucket}/out/") for key in changed}
    assert names == {"LATEST", "versions/00000003.json", "versions/00000004.json"}
    assert [each.n_components for each in history(out)] == [2, 1, 2, 1]


def test_other_data_are_labelled_with_a_model_from_there(bucket: str, no_pictures: None) -> None:
    published = run(settings(bucket))
    for name, model in (("one", f"s3://{bucket}/out@1"), ("two", published.path("model"))):
        out = f"s3://{bucket}/labels-{name}"
        document = {
            "data": {"path": f"s3://{bucket}/data/species=virginica"},
            "model": model,
            "output": {"path": out},
        }
        scored = score(settings_from(document, ScoreSettings))
        assert scored.metrics["n_rows"] == 50
        assert label_parts(out)[0].startswith(f"{out}/runs/{scored.run_id}/labels/part-00000-")
    assert load_model(model).sha256 == published.model.sha256


def test_a_scheme_may_be_in_upper_case(bucket: str, no_pictures: None) -> None:
    places = {"data": {"path": f"S3://{bucket}/data"}, "output": {"path": f"S3://{bucket}/out"}}
    published = run(settings(bucket, **places))
    assert published.folder.store.url == f"s3://{bucket}/out"
    assert run(settings(bucket)).version == published.version
    model = published.path("model").replace("s3://", "S3://")
    assert load_model(f"S3://{bucket}/out").sha256 == load_model(model).sha256
    document = places | {"model": model, "output": {"path": f"S3://{bucket}/labels"}}
    labelled = score(settings_from(document, ScoreSettings))
    assert labelled.metrics["n_rows"] == ROWS
    with pytest.raises(SettingsError, match="inside"):
        plan(settings(bucket, output={"path": f"S3://{bucket}/data/out"}))


def test_a_store_that_cannot_decide_is_told_in_log_metrics_and_report(
    bucket: str, service: ObjectService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "render_report", lambda data: str(tables.input_lines(data)))
    said: list[str] = []

    class Listener(Watcher):
        def warn(self, message: str) -> None:
            said.append(message)

    def spoil(request: dict[str, Any], carry_out: Any) -> Any:
        request.pop("HTTP_IF_NONE_MATCH", None)
        return carry_out()

    with service.spoilt(spoil):
        published = run(settings(bucket), Listener())
    caution = published.metrics["caution"]
    assert "only one run at a time" in caution
    assert said == [caution]
    assert "only one run at a time" in published.folder.get("report.html").decode()
    with service.spoilt(spoil):
        run(settings(bucket), Listener())
    assert said == [caution]  # the latest version is left as it is
    with service.spoilt(spoil):
        run(settings(bucket, fit={"n_components": 1}))
        run(settings(bucket), Listener())
    assert said == [caution] * 2


class At(Watcher):
    """Does something when a phase or a pass begins, once."""

    def __init__(self, when: str, action: Any) -> None:
        self.when, self.action = when, action

    def phase(self, name: str, detail: str) -> None:
        self._maybe(name)

    def passed(self, record: Any, settings: Any) -> None:
        self._maybe("pass")

    def _maybe(self, what: str) -> None:
        if what == self.when:
            self.when = ""
            self.action()


CHANGES = {
    "overwritten": lambda place, x: put_rows(place, x[::-1]),  # of the same size
    "longer": lambda place, x: put_rows(place, np.append(x, 1.0)),
    "deleted": lambda place, x: files().rm_file(place),
}


@pytest.mark.parametrize(
    ("when", "change"),
    [("fit", "overwritten"), ("pass", "overwritten"), ("label", "overwritten"),
     ("pass", "longer"), ("label", "deleted")],
)  # fmt: skip
def test_an_object_that_changes_during_a_run_is_an_error_never_a_mix(
    bucket: str, when: str, change: str
) -> None:
    x = np.random.default_rng(0).normal(size=16)
    place = f"{bucket}/rows/a.parquet"
    put_rows(place, x)
    one = settings(
        bucket,
        data={"path": f"s3://{bucket}/rows", "id_columns": []},
        fit={"n_components": 2, "max_iter": 3},
        memory={"held_bytes": 0},
    )
    with pytest.raises(InputChangedError, match=r"a\.parquet: changed .*Run again"):
        run(one, At(when, lambda: CHANGES[change](place, x)))
    assert open_store(f"s3://{bucket}/out").list("versions/") == []


def test_an_object_that_changes_between_two_reads_of_one_pass_is_noticed(
    bucket: str, service: ObjectService
) -> None:
    """Ranges are asked for by ETag, so bytes of two objects never come together."""
    x = np.random.default_rng(0).normal(size=4000)
    place = f"{bucket}/rows/a.parquet"
    put_rows(place, x)
    left = [12]

    def spoil(request: dict[str, Any], carry_out: Any) -> Any:
        if request["REQUEST_METHOD"] == "GET" and request["PATH_INFO"].endswith("a.parquet"):
            left[0] -= 1
            if left[0] == 0:
                return failure("412 Precondition Failed", "PreconditionFailed")
        return carry_out()

    one = settings(bucket, data={"path": f"s3://{bucket}/rows", "id_columns": []})
    with service.spoilt(spoil), pytest.raises(InputChangedError, match="Run again"):
        run(one)


def test_a_refused_read_is_an_error_with_a_place_and_no_secret(
    bucket: str, service: ObjectService
) -> None:
    def spoil(request: dict[str, Any], carry_out: Any) -> Any:
        reads = request["REQUEST_METHOD"] == "GET" and "/data/" in request["PATH_INFO"]
        return failure("403 Forbidden", "AccessDenied") if reads else carry_out()

    with service.spoilt(spoil), pytest.raises(DataError, match="cannot be read") as raised:
        run(settings(bucket))
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "out", "inside"),
    [
        ("s3://b/data", "s3://b/data/out", True),
        ("s3://b", "s3://b/out", True),
        ("s3://b/*/runs", "s3://b/out", True),
        ("s3://b/data/*.parquet", "s3://b/data/out", False),
        ("s3://b/data", "s3://b/data-out", False),
        ("s3://b/data", "s3://other/data/out", False),
        ("/data", "s3://b/data/out", False),
        ("s3://b/data", "/data/out", False),
    ],
)
def test_an_output_among_the_data_is_seen(path: str, out: str, inside: bool) -> None:
    assert would_list(path, open_store(out).path("runs/0/labels/part.parquet")) is inside


def test_an_output_among_the_data_is_refused(bucket: str) -> None:
    with pytest.raises(SettingsError, match=r"output\.path: s3://.* lies inside of data\.path"):
        run(settings(bucket, output={"path": f"s3://{bucket}/data/out"}))


def test_the_command_line_reads_and_writes_there(bucket: str, no_pictures: None) -> None:
    data, out = f"s3://{bucket}/data", f"s3://{bucket}/out"
    calls = {
        "Published version 1": ["fit", data, "--n-components", "3", "--out", out],
        "petal_width": ["show", out],
        "is whole": ["verify", f"{out}@1"],
        f"{out}/runs/": ["path", out, "model"],
    }
    for words, arguments in calls.items():
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert words in done.output
        assert SECRET not in done.output
    label = ["label", data, "--model", f"{out}@1", "--out", f"s3://{bucket}/labels"]
    assert CliRunner().invoke(app, label).exit_code == 0
    assert len(label_parts(f"s3://{bucket}/labels")) == len(label_parts(out))


@pytest.mark.heavy
def test_worker_processes_read_and_write_there(bucket: str) -> None:
    published = run(
        settings(bucket, cluster={"kind": "processes", "workers": 2}, memory={"chunk_bytes": 2048})
    )
    assert published.metrics["n_rows"] == ROWS
    assert open_output(f"s3://{bucket}/out").run_id == published.run_id
    assert verify(published.folder.store, published.version) == []
