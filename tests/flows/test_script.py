"""Both flows as scripts without a server: exit codes, messages, what is published."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gmm_dask.stage.outputs import open_output
from tests.flows.conftest import PATIENCE, ROOT
from tests.object_service import SECRET, ObjectService, files


def script(flow: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", f"flows.{flow}", *arguments],
        env=environment | {"HOME": str(home)}, cwd=ROOT, timeout=PATIENCE,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_flow_runs_without_a_server(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = script(
        "cluster", "config/iris.yaml", "--set", f"output.path={out}", "--set", "fit.tol=1e-9",
        "--set", "fit.max_iter=500", home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("Published version 1", "180.1855", "petal_width", "model.json", "report.html"):
        assert word in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    logged = (done.stdout + done.stderr).partition("fit: 150 rows")[0]
    assert "4 features, as named: sepal_length, sepal_width, petal_length, petal_width" in logged
    published = open_output(str(out))
    assert published.metrics["n_rows"] == 150
    assert published.folder.get("report.html").count(b"data:image/png;base64,iVBOR") >= 2


@pytest.mark.parametrize(
    ("override", "code", "word"),
    [
        ("fit.n_componentz=3", 2, "n_componentz"),
        ("data.path=/no/such/place", 1, "/no/such/place"),
    ],
)
def test_a_script_that_fails_says_why_once(
    override: str, code: int, word: str, tmp_path: Path
) -> None:
    done = script(
        "cluster", "config/iris.yaml", "--set", f"output.path={tmp_path / 'out'}",
        "--set", override, home=tmp_path,
    )  # fmt: skip
    assert done.returncode == code
    assert word in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "out" / "versions").exists()


@pytest.mark.heavy
def test_both_flows_read_and_publish_in_an_object_store(
    tmp_path: Path, service: ObjectService
) -> None:
    bucket = service.bucket()
    for file in (ROOT / "examples" / "iris").rglob("*.parquet"):
        key = file.relative_to(ROOT / "examples" / "iris")
        files().pipe_file(f"{bucket}/data/{key}", file.read_bytes())
    data, out = f"data.path=s3://{bucket}/data", f"s3://{bucket}/out"
    done = script(
        "cluster", "config/iris.yaml", "--set", data, "--set", f"output.path={out}", home=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{out}/runs/" in done.stdout
    labelled = script(
        "label", "config/label.yaml", "--set", data, "--set", f"model={out}",
        "--set", f"output.path=s3://{bucket}/labels", home=tmp_path,
    )  # fmt: skip
    assert labelled.returncode == 0, labelled.stdout + labelled.stderr
    assert open_output(f"s3://{bucket}/labels").metrics["n_rows"] == 150
    for text in (done.stdout, done.stderr, labelled.stdout, labelled.stderr):
        assert SECRET not in text
