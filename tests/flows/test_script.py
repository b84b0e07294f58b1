"""Both flows as scripts: exit codes, messages, what is published, with a server and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.cluster import cluster
from flows.label import label
from gmm_dask import load_model
from gmm_dask.stage.outputs import label_parts, open_output
from gmm_dask.stage.settings import ScoreSettings, load_settings
from tests.flows.conftest import PATIENCE, ROOT, Server, ask
from tests.object_service import SECRET, ObjectService, files


def script(flow: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", f"flows.{flow}", *arguments],
        env=environment | {"HOME": str(home)}, cwd=ROOT, timeout=PATIENCE,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_flow_runs_without_a_server_and_the_next_with_one_that_is_configured(
    server: Server, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = script(
        "cluster", "config/iris.yaml", "--set", f"output.path={out}", "--set", "fit.tol=1e-9",
        "--set", "fit.max_iter=500", home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("Published version 1", "180.1855", "petal_width", "model.json", "report.html"):
        assert word in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    published = open_output(str(out))
    assert published.metrics["n_rows"] == 150
    assert published.folder.get("report.html").count(b"data:image/png;base64,iVBOR") == 2
    by_hand = {"flow_runs": {"deployment_id": {"is_null_": True}}}  # schedules of others go on
    known = len(ask(server, "flow_runs/filter", by_hand))
    server.call(
        "flows.label", "config/label.yaml", "--set", f"model={out}",
        "--set", f"output.path={tmp_path / 'labels'}",
    )  # fmt: skip
    assert len(label_parts(str(tmp_path / "labels"))) == 2
    assert len(ask(server, "flow_runs/filter", by_hand)) == known + 1
    reader, writer = os.pipe()
    os.close(reader)  # what the next one prints is lost, and it is done all the same
    again = [sys.executable, "-m", "flows.label", "config/label.yaml", "--set", f"model={out}",
             "--set", f"output.path={tmp_path / 'more'}"]  # fmt: skip
    lost = subprocess.run(
        again, env=server.environment, cwd=ROOT, stdout=writer, stderr=writer, check=False
    )
    os.close(writer)
    assert lost.returncode == 0
    assert open_output(str(tmp_path / "more")).metrics["n_rows"] == 50


def test_each_flow_ends_with_its_run_as_the_latest_and_says_how(
    server: Server, tmp_path: Path
) -> None:
    out, labels = tmp_path / "out", tmp_path / "labels"
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        said = []
        for k in (3, 2, 3, 3):
            overrides = [f"output.path={out}", f"fit.n_components={k}"]
            state = cluster(load_settings(ROOT / "config/iris.yaml", overrides), return_state=True)
            said.append(state.message)
            assert load_model(str(out)).parameters.n_components == k
        for version in (1, 2, 3, 3):
            overrides = [f"model={out}@{version}", f"output.path={labels}"]
            document = load_settings(ROOT / "config/label.yaml", overrides, ScoreSettings)
            said.append(label(document, return_state=True).message)
            assert load_model(str(labels)).sha256 == load_model(f"{out}@{version}").sha256
    for first, second, third, fourth in (said[:4], said[4:]):
        assert first.startswith("Version 1 is published.")
        assert second.startswith("Version 2 is published.")
        assert "published before as version 1; version 3 now points to it" in third
        assert "the latest version already, version 3; nothing was written" in fourth


@pytest.mark.parametrize(
    ("override", "code", "word"),
    [
        ("data.features=[leaf]", 1, "leaf"),
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
