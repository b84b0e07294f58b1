"""The README's steps against a real server: pool, deploy, worker, a run by hand and by schedule."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.stage.outputs import open_output
from tests.flows.conftest import CANARY, PATIENCE, ROOT, Server, ask

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server.call("prefect", "--no-prompt", "work-pool", "create", "gmm", "--type", "process")
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gmm"],
            env=server.environment, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        server.call("prefect", "--no-prompt", "deploy", "--all")  # while the worker starts
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def finished_run(server: Server, run_filter: dict[str, Any]) -> dict[str, Any]:
    """The first run that matches, once it has ended."""
    until = time.monotonic() + PATIENCE
    body = {"flow_runs": run_filter, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
    while time.monotonic() < until:
        for found in ask(server, "flow_runs/filter", body):
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return dict(found)
        time.sleep(0.5)
    raise AssertionError(f"no run ended within {PATIENCE} s")


def test_both_deployments_run_on_the_worker_and_leave_artifacts(
    worker: Server, tmp_path: Path
) -> None:
    fit = {
        "data": {"path": "examples/iris", "id_columns": ["flower"]},
        "fit": {"n_components": 3},
        "output": {"path": str(tmp_path / "out")},
    }
    run_once(worker, "cluster/iris", fit)
    assert open_output(str(tmp_path / "out")).metrics["n_rows"] == 150
    label = {
        "data": {"path": "examples/iris"},
        "model": str(tmp_path / "out"),
        "output": {"path": str(tmp_path / "labels")},
    }
    run_once(worker, "label/iris", label)
    assert open_output(str(tmp_path / "labels")).metrics["n_rows"] == 150
    artifacts = ask(worker, "artifacts/filter")
    assert {"markdown", "table", "progress"} <= {artifact["type"] for artifact in artifacts}
    pictures = [a for a in artifacts if "data:image/png;base64," in str(a["data"])]
    assert len(pictures) >= 2  # the curve and the components
    told = [artifacts, ask(worker, "logs/filter"), ask(worker, "flow_runs/filter")]
    assert CANARY not in json.dumps(told)
    # Prefect would pickle results into this folder.
    assert not list(Path(worker.environment["PREFECT_HOME"]).glob("storage/**/*"))


def run_once(server: Server, deployment: str, settings: dict[str, Any]) -> None:
    # With --watch the command fails when the run does, and `call` with it.
    server.call(
        "prefect", "--no-prompt", "deployment", "run", deployment,
        "--param", f"settings={json.dumps(settings)}", "--watch",
    )  # fmt: skip


def test_a_run_that_fails_on_the_worker_says_why_without_a_traceback(
    worker: Server, tmp_path: Path
) -> None:
    settings = {"data": {"path": "/no/such/place"}, "output": {"path": str(tmp_path / "out")}}
    done = subprocess.run(
        worker.command(
            "prefect", "--no-prompt", "deployment", "run", "cluster/iris",
            "--param", f"settings={json.dumps(settings)}", "--watch",
        ),
        env=worker.environment, cwd=ROOT, timeout=PATIENCE,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    (failed,) = ask(
        worker, "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}}
    )
    assert "/no/such/place" in failed["state"]["message"]
    logs = ask(worker, "logs/filter", {"logs": {"flow_run_id": {"any_": [failed["id"]]}}})
    said = "\n".join(log["message"] for log in logs)
    assert "/no/such/place" in said
    assert "Traceback" not in said
    assert "unexpected" not in said


def test_a_schedule_starts_a_run_by_itself(worker: Server, tmp_path: Path) -> None:
    found = ask(worker, "deployments/filter")
    deployment = next(each for each in found if each["entrypoint"] == "flows/cluster.py:cluster")
    crons = [each["schedule"]["cron"] for each in deployment["schedules"]]
    assert crons == ["0 3 * * *"]
    settings = {
        "data": {"path": "examples/iris"},
        "fit": {"n_components": 2},
        "output": {"path": str(tmp_path / "scheduled")},
    }
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    ask(
        worker,
        f"deployments/{deployment['id']}/schedules",
        [{  # type: ignore[arg-type]
            "active": True, "slug": "soon", "schedule": {"interval": 30, "anchor_date": soon},
            "parameters": {"settings": settings},
        }],
    )  # fmt: skip
    ended = finished_run(
        worker,
        {
            "deployment_id": {"any_": [deployment["id"]]},
            "tags": {"all_": ["auto-scheduled"]},
            "state": {"type": {"not_any_": ["SCHEDULED"]}},
        },
    )
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert open_output(str(tmp_path / "scheduled")).model.parameters.n_components == 2


def test_the_server_refuses_settings_that_cannot_work(worker: Server) -> None:
    done = subprocess.run(
        worker.command(
            "prefect", "--no-prompt", "deployment", "run", "cluster/iris", "--param",
            'settings={"data": {"path": "x"}, "fit": {"n_componentz": 3}, "output": {"path": "y"}}',
        ),
        env=worker.environment, cwd=ROOT, timeout=PATIENCE,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "n_componentz" in done.stdout + done.stderr
