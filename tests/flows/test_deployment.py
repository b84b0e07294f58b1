"""The README's steps against a real server: pool, deploy, worker, a run by schedule and by hand."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from gmm_dask import load_model
from gmm_dask.flows.deployable import backfill, cluster, compare, label, refresh
from gmm_dask.stage.outputs import label_parts, open_output
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import ScoreSettings, load_settings
from gmm_dask.storage import RunFolder, list_versions, open_store
from tests.by_hand import wait_until
from tests.flows.conftest import CANARY, PATIENCE, ROOT, Server, ask, running
from tests.stage.refresh.nightly import Lake, rows

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server.call("prefect", "--no-prompt", "work-pool", "create", "gmm", "--type", "process")
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with running(["worker", "start", "--pool", "gmm"], server.environment, log):
        server.call("prefect", "--no-prompt", "deploy", "--all")  # while the worker starts
        yield server


@pytest.fixture(scope="module")
def crons(worker: Server) -> dict[str, list[str]]:
    """When each flow was to run; the tests have no runs but their own, whatever the hour."""
    found = {}
    for each in ask(worker, "deployments/filter"):
        found[each["entrypoint"]] = [one["schedule"]["cron"] for one in each["schedules"]]
        for one in each["schedules"]:
            ask(worker, f"deployments/{each['id']}/schedules/{one['id']}", method="DELETE")
    return found


@pytest.fixture(autouse=True)
def no_other_runs(crons: dict[str, list[str]]) -> None:
    """A run that is due would cancel that of a test."""


def deployment(server: Server, flow: str) -> dict[str, Any]:
    found = ask(server, "deployments/filter")
    return next(each for each in found if each["entrypoint"] == f"flows/{flow}.py:{flow}")


def begin(server: Server, flow: str, settings: dict[str, Any]) -> str:
    """Ask for a run of a deployment, as a button of the server's page does; the run's id."""
    path = f"deployments/{deployment(server, flow)['id']}/create_flow_run"
    return str(ask(server, path, {"parameters": {"settings": settings}})["id"])


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


def test_a_run_that_fails_on_the_worker_says_why_without_a_traceback(
    worker: Server, tmp_path: Path
) -> None:
    settings = {"data": {"path": "/no/such/place"}, "output": {"path": str(tmp_path / "out")}}
    failing = begin(worker, "cluster", settings)
    ended = finished_run(worker, {"id": {"any_": [failing]}})
    assert ended["state_type"] == "FAILED"
    assert "/no/such/place" in ended["state"]["message"]
    logged: list[str] = []

    def is_told() -> bool:
        """The reason comes last, by itself, when the state is known already."""
        logs = ask(worker, "logs/filter", {"logs": {"flow_run_id": {"any_": [failing]}}})
        logged[:] = [log["message"] for log in logs]
        return ended["state"]["message"] in logged

    wait_until(is_told, PATIENCE)
    said = "\n".join(logged)
    assert "Traceback" not in said
    assert "unexpected" not in said


def test_a_schedule_starts_a_fit_whose_model_labels_in_a_run_by_hand_and_both_leave_artifacts(
    worker: Server, crons: dict[str, list[str]], tmp_path: Path
) -> None:
    chosen = deployment(worker, "cluster")
    assert crons["flows/cluster.py:cluster"] == ["0 3 * * *"]
    fit = {
        "data": {"path": "examples/iris", "id_columns": ["flower"]},
        "fit": {"n_components": 3},
        "output": {"path": str(tmp_path / "out")},
    }
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    ask(
        worker,
        f"deployments/{chosen['id']}/schedules",
        [{
            "active": True, "slug": "soon", "parameters": {"settings": fit},
            # A day later there is nobody to wait for the next one.
            "schedule": {"interval": 86400, "anchor_date": soon},
        }],
    )  # fmt: skip
    ended = finished_run(
        worker,
        {
            "deployment_id": {"any_": [chosen["id"]]},
            "tags": {"all_": ["auto-scheduled"]},
            "state": {"type": {"not_any_": ["SCHEDULED"]}},
        },
    )
    assert ended["state_type"] == "COMPLETED", ended["state"]
    fitted = open_output(str(tmp_path / "out"))
    assert (fitted.metrics["n_rows"], fitted.model.parameters.n_components) == (150, 3)
    labelling = {
        "data": {"path": "examples/iris"},
        "model": str(tmp_path / "out"),
        "output": {"path": str(tmp_path / "labels")},
    }
    # With --watch the command fails when the run does, and `call` with it.
    worker.call(
        "prefect", "--no-prompt", "deployment", "run", "label/iris",
        "--param", f"settings={json.dumps(labelling)}", "--watch",
    )  # fmt: skip
    assert open_output(str(tmp_path / "labels")).metrics["n_rows"] == 150
    artifacts = ask(worker, "artifacts/filter")
    assert {"markdown", "table", "progress"} <= {artifact["type"] for artifact in artifacts}
    pictures = [a for a in artifacts if "data:image/png;base64," in str(a["data"])]
    assert len(pictures) >= 2  # the curve and the components
    told = [artifacts, ask(worker, "logs/filter"), ask(worker, "flow_runs/filter")]
    assert CANARY not in json.dumps(told)
    # Prefect would pickle results into this folder.
    assert not list(Path(worker.environment["PREFECT_HOME"]).glob("storage/**/*"))


@pytest.mark.heavy
def test_a_settings_file_is_deployed_from_any_folder_and_no_run_costs_another(
    worker: Server, tmp_path: Path
) -> None:
    """Paths are relative to that folder; single settings are replaced, the others stay."""
    settings = {
        "data": {"path": str(ROOT / "examples/iris"), "id_columns": ["flower"]},
        "fit": {"n_components": 3},
        "output": {"path": "out"},
    }
    (tmp_path / "nightly.yaml").write_text(json.dumps(settings))
    told = worker.call(
        "gmm_dask", "deploy", "nightly.yaml", "--pool", "gmm", "--set", "fit.tol=1e-4",
        cwd=tmp_path,
    ).stdout  # fmt: skip
    assert told.startswith("Deployed cluster/nightly.")
    (found,) = ask(worker, "deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    path = f"deployments/{found['id']}/create_flow_run"
    runs = [
        ask(worker, path, {"parameters": {"overrides": [f"fit.n_components={k}"]}})["id"]
        for k in (2, 4)
    ]
    ended = [finished_run(worker, {"id": {"any_": [each]}}) for each in runs]
    assert [each["state_type"] for each in ended] == ["COMPLETED"] * 2, ended
    assert {each["name"].partition(", ")[2] for each in ended} == {
        "n_components 2, full",
        "n_components 4, full",
    }
    versions = list_versions(open_store(str(tmp_path / "out")))
    documents = [
        RunFolder(open_store(str(tmp_path / "out")), each.run_id).get_json("run.json")["settings"]
        for each in versions
    ]
    assert {each["fit"]["n_components"] for each in documents} == {2, 4}
    assert {each["fit"]["tol"] for each in documents} == {1e-4}
    told_of = {"filter": {"event": {"name": ["gmm_dask.version.published"]}}}

    def are_told() -> bool:
        """Events come a moment after the run has ended."""
        events = ask(worker, "events/filter", told_of)["events"]
        mine = [each for each in events if each["payload"]["output"] == str(tmp_path / "out")]
        return {each["payload"]["version"] for each in mine} == {1, 2}

    wait_until(are_told, PATIENCE)


@pytest.mark.heavy
def test_what_cannot_be_deployed_is_said_before_the_server_is_asked_to(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("data: {path: x}\noutput: {path: y}\n")
    for arguments, word in (
        (["--pool", "nowhere"], "There is no work pool 'nowhere'"),
        (["--pool", "gmm", "--cron", "at dawn"], "cron 'at dawn'"),
        (["--pool", "gmm", "--set", "fit.n_componentz=3"], "n_componentz"),
    ):
        done = subprocess.run(
            server.command("gmm_dask", "deploy", "a.yaml", *arguments), cwd=tmp_path,
            env=server.environment, timeout=PATIENCE, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stdout + done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_the_server_refuses_settings_that_cannot_work(worker: Server) -> None:
    settings = {"data": {"path": "x"}, "fit": {"n_componentz": 3}, "output": {"path": "y"}}
    with pytest.raises(HTTPError) as refused:
        begin(worker, "cluster", settings)
    assert 400 <= refused.value.code < 500
    assert "n_componentz" in refused.value.read().decode()


def test_a_script_is_a_run_of_the_server_that_is_configured(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(load_settings(ROOT / "config" / "iris.yaml", [f"output.path={out}"]))
    by_hand = {"flow_runs": {"deployment_id": {"is_null_": True}}}
    known = len(ask(server, "flow_runs/filter", by_hand))
    command = server.command(
        "flows.label", "config/label.yaml", "--set", f"model={out}",
        "--set", f"output.path={tmp_path / 'labels'}",
    )  # fmt: skip
    reader, writer = os.pipe()
    os.close(reader)  # what it prints is lost, and it is done all the same
    lost = subprocess.run(
        command, env=server.environment, cwd=ROOT, stdout=writer, stderr=writer, check=False
    )
    os.close(writer)
    assert lost.returncode == 0
    assert len(label_parts(str(tmp_path / "labels"))) == 2
    assert len(ask(server, "flow_runs/filter", by_hand)) == known + 1


@pytest.mark.heavy
def test_a_refresh_goes_on_from_the_latest_and_tells_drift_as_an_event(
    server: Server, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake", tmp_path / "out")
    said, moved = [], (0.0, 0.0, 9.0, 9.0)
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        for day, by in enumerate(moved):
            lake.write(f"day={day}", rows(day, moved=by))
            limits = {"warn": {"divergence": 1.0}} if day < 3 else {"fail": {"divergence": 1.0}}
            state = refresh(lake.settings(refresh=limits), return_state=True)
            said.append(state.message)
    assert [each.partition(" is published")[0] for each in said[:3]] == [
        f"Version {number}" for number in (1, 2, 3)
    ]
    assert "above the 1 of refresh.fail.divergence" in said[3]
    told_of = {"filter": {"event": {"name": ["gmm_dask.drift.exceeded"]}}}

    def are_told() -> bool:
        events = ask(server, "events/filter", told_of)["events"]
        return {each["payload"]["version"] for each in events} == {3, None}

    wait_until(are_told, PATIENCE)


def test_a_grid_a_comparison_and_a_backfill_leave_what_they_are_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is asked for, an output is an asset, too."""
    lake = Lake(tmp_path / "lake", tmp_path / "out")
    for day in range(4):
        (lake.folder / f"day={day}").mkdir(parents=True)
        lake.write(f"day={day}/a", rows(day))
    asked = {"n_components": {"from": 1, "to": 3}, "init_params": "kmeans"}
    grid = lake.settings(fit=asked)
    scoring = ScoreSettings.model_validate(
        {
            "data": {"path": str(tmp_path / "lake")},
            "model": str(tmp_path / "out"),
            "output": {"path": str(tmp_path / "labels")},
        }
    )
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        assert cluster(grid, return_state=True).is_completed()
        assert cluster(grid, ["data.between={day: [0, 2]}"], return_state=True).is_completed()
        monkeypatch.setenv("GMM_DASK_ASSETS", "1")
        told = compare(str(tmp_path / "out"), return_state=True).message
        first = compare(f"{tmp_path}/out@1", return_state=True)
        filled = backfill("day", "1", "2", settings=scoring, return_state=True)
    assert f"{tmp_path}/out@1 and {tmp_path}/out@2: " in told
    assert first.is_failed()
    assert "is the first version" in first.message
    assert filled.is_completed(), filled.message
    published = open_output(str(tmp_path / "labels"))
    names = [part["name"] for part in published.folder.get_json("run.json")["plan"]["partitions"]]
    assert [name.partition("/")[0] for name in names] == ["day=1", "day=2"]
    pages = {(each["key"], str(each["data"])) for each in ask(server, "artifacts/filter")}
    assert any(key == "gmm-outputs" and "Candidates by" in page for key, page in pages)
    assert any(key == "gmm-comparison" and "### Components" in page for key, page in pages)
    asked_of = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}}

    def is_told() -> bool:
        events = ask(server, "events/filter", asked_of)["events"]
        assets = [(e["resource"]["prefect.resource.id"], e["payload"]["version"]) for e in events]
        return assets == [(f"file://{tmp_path}/labels", 1)]

    wait_until(is_told, PATIENCE)


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
