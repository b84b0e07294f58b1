"""A Prefect server that is not there, or goes under way: a named error, and nothing is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from httpx import ReadTimeout
from prefect import Flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    temporary_settings,
)

from gmm_dask.flows.deployable import cluster, label
from gmm_dask.flows.script import ServerError, carried_out, free_port, main
from gmm_dask.stage.outputs import Published, label_parts, open_output
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import ScoreSettings, Settings, load_settings
from gmm_dask.storage import list_versions, verify
from tests.flows.conftest import PATIENCE, ROOT, Server

IRIS = "config/iris.yaml"
PLACES = ("plan", "first pass", "later pass", "checkpoint", "label", "publish", "shown")
CELLS = [
    *(("closed", place) for place in PLACES),
    *(("silent", place) for place in ("first pass", "publish")),
]


def called(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Prefect asks six times, the last time after a minute, and waits a minute for each answer.
    brief = {
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "PREFECT_API_REQUEST_TIMEOUT": "2",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    return subprocess.run(
        server.command(*arguments), env=server.environment | brief, cwd=ROOT, timeout=PATIENCE,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def overrides(out: Path) -> list[str]:
    return [f"output.path={out}", "output.checkpoint_seconds=0"]


def settings(out: Path) -> Settings:
    return load_settings(ROOT / IRIS, overrides(out))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return run(settings(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("flow", "schema", "config"),
    [(cluster, Settings, IRIS), (label, ScoreSettings, "config/label.yaml")],
)
def test_a_server_that_is_not_there_is_named_before_any_work(
    flow: Flow[Any, Any], schema: type[Settings | ScoreSettings], config: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url, out = f"http://127.0.0.1:{free_port()}/api", tmp_path / "out"
    arguments = [str(ROOT / config), "--set", f"output.path={out}"]
    brief = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_HOME: tmp_path}
    with temporary_settings(brief):
        assert main(flow, schema, arguments) == 1
    printed = capsys.readouterr()
    assert f"error: The Prefect server at {url} does not answer" in printed.err
    assert "Traceback" not in printed.out + printed.err
    assert not out.exists()


def test_a_server_that_fails_under_way_is_named() -> None:
    def flow(settings: Settings) -> Published:
        raise ReadTimeout("")

    with pytest.raises(ServerError, match=r"server at http://there failed \(ReadTimeout\), so how"):
        carried_out(flow, settings(Path("out")), "http://there")


@pytest.mark.heavy
@pytest.mark.parametrize(("how", "place"), CELLS)
def test_a_server_that_goes_is_named_and_the_run_is_published_all_the_same(
    how: str, place: str, server: Server, undisturbed: Published, tmp_path: Path
) -> None:
    changes = [word for change in overrides(tmp_path) for word in ("--set", change)]
    done = called(server, "tests.flows.severed", "cluster", place, how, IRIS, *changes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "how the run ended is not recorded there" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    published = open_output(str(tmp_path))
    store = published.folder.store
    assert list_versions(store) == [published.version]
    assert verify(store, published.version) == []
    assert published.folder.get("model.json") == undisturbed.folder.get("model.json")
    parts = [label_parts(each.folder.store.url) for each in (published, undisturbed)]
    assert [Path(part).name for part in parts[0]] == [Path(part).name for part in parts[1]]
    assert not run(settings(tmp_path)).new
