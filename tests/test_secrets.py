"""No secret of settings, or of the environment, gets into what a run writes, says or refuses."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gmm_dask.command.cli import app
from gmm_dask.errors import GmmDaskError, SettingsError
from gmm_dask.stage import publish
from gmm_dask.stage.settings import load_settings
from gmm_dask.storage import open_store
from tests.object_service import ObjectService, files

SECRET = "hunter2-S3cr3t/x+y"


@pytest.mark.parametrize(
    "text",
    [
        f"data: {{path: data, password: {SECRET}}}\noutput: {{path: out}}",
        f"data: {{path: 's3://u:{SECRET}@b/x'}}\noutput: {{path: out}}",
        f"data: {{path: data\npassword: {SECRET}\n",
        f"password: '{SECRET}",
        f"token: !{SECRET} x",
        f"data: {{path: 3, storage_options: {{secret: {SECRET}}}}}\noutput: {{path: out}}",
        f"data: 'AWS_SECRET_ACCESS_KEY={SECRET}'",
        f"'s3://u:{SECRET}@b/x': 1",
    ],
)
def test_a_settings_file_with_a_secret_is_refused_and_not_repeated(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    assert SECRET not in str(refused.value)
    done = CliRunner().invoke(app, ["run", str(path), "--debug"])
    assert done.exit_code == 2
    assert SECRET not in done.output


@pytest.mark.parametrize(
    "override",
    [f"data.password={SECRET}", f"data.path=s3://u:{SECRET}@b", f"password={SECRET}",
     f"data.path.token={SECRET}", f"data.token={SECRET} [", f"s3://u:{SECRET}@b"],
)  # fmt: skip
def test_an_override_with_a_secret_is_refused_and_not_repeated(
    override: str, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data: {path: data}\noutput: {path: out}\n")
    with pytest.raises(SettingsError) as refused:
        load_settings(path, [override])
    assert SECRET not in str(refused.value)


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret in the environment, under many names, as a pipeline has them."""
    for name in ("THE_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SAS", "MY_CREDENTIALS"):
        monkeypatch.setenv(name, SECRET)
    return SECRET


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"x": np.arange(20.0) ** 2}), folder / "a.parquet")
    return folder


def bytes_below(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        yield str(path).encode()
        if path.is_file():
            yield path.read_bytes()


def test_a_run_writes_no_secret_on_the_disk_or_the_terminal(
    canary: str, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["fit", str(rows), "--n-components", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, ["show", str(out)])
    written = [*bytes_below(out), done.output.encode(), shown.output.encode()]
    assert sum(map(len, written)) > 10_000
    assert not any(canary.encode() in each for each in written)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", f"no/{SECRET}/data", "--n-components", "2", "--out", "OUT"],
        ["fit", f"s3://u:{SECRET}@b/data", "--n-components", "2", "--out", "OUT"],
        ["fit", "DATA", "--n-components", "2", "--out", f"s3://u:{SECRET}@b/out"],
        ["fit", "DATA", "--n-components", "2", "--out", f"memory://u:{SECRET}@b/out"],
        ["fit", "DATA", "--n-components", "99", "--out", "OUT"],
        ["fit", "DATA", "--features", f"token={SECRET}", "--n-components", "2", "--out", "OUT"],
        ["fit", "DATA", "--n-components", "2", "--out", "OUT", "--cluster",
         f"tls://u:{SECRET}@127.0.0.1:8786"],
        ["label", "DATA", "--model", f"s3://u:{SECRET}@b/out", "--out", "OUT"],
        ["show", f"s3://u:{SECRET}@b/out"],
        ["verify", f"out/{SECRET}"],
        ["path", f"s3://u:{SECRET}@b/out@3", "model"],
    ],
)  # fmt: skip
def test_no_failure_repeats_a_secret(
    arguments: list[str], canary: str, rows: Path, tmp_path: Path
) -> None:
    places = {"DATA": str(rows), "OUT": str(tmp_path / "out")}
    done = CliRunner().invoke(app, [*(places.get(each, each) for each in arguments), "--debug"])
    assert done.exit_code in (1, 2)
    assert "gmm-dask: " in done.output
    assert canary not in done.output
    if (tmp_path / "out").exists():
        assert not any(canary.encode() in each for each in bytes_below(tmp_path / "out"))


def test_a_run_writes_no_secret_into_an_object_store(
    service: ObjectService, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, secret = service.bucket(), service.environment["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setattr(publish, "render_report", lambda data: json.dumps(dict(data.settings)))
    done = CliRunner().invoke(
        app, ["fit", str(rows), "--n-components", "2", "--out", f"s3://{bucket}/out"]
    )
    assert done.exit_code == 0, done.output
    found = files().find(bucket)
    assert len(found) > 8
    assert not any(secret.encode() in files().cat_file(key) for key in found)
    assert secret not in done.output


def test_errors_of_storage_repeat_no_secret_of_their_library(
    canary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(f"signed with {canary}: https://h/x?X-Amz-Signature={canary}")

    monkeypatch.setattr("fsspec.filesystem", fail)
    with pytest.raises(GmmDaskError) as refused:
        open_store("s3://bucket/out").get("x")
    assert canary not in str(refused.value)


@pytest.mark.parametrize("name", ["prefect.task_runs", "prefect.flow_runs", "prefect.engine"])
def test_what_prefect_logs_of_a_defect_holds_no_secret(name: str, canary: str) -> None:
    import gmm_dask.flows.tasks  # noqa: F401  (it adds the filters)

    error = KeyError(f"s3://u:{canary}@b")
    record = logging.LogRecord(
        name, logging.ERROR, __file__, 1, "at %s", (canary,), (type(error), error, None)
    )
    assert logging.getLogger(name).filter(record)
    said = logging.Formatter().format(record)
    assert canary not in said
    assert "KeyError" in said
