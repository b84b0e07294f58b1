"""What is deployed, what events say, and the examples of the page; no server is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import prefect
import pytest
import yaml
from prefect.client.schemas.objects import WorkPool
from prefect.deployments.runner import RunnerDeployment
from prefect.events import AutomationCore, DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.workers.process import ProcessWorker
from pydantic import TypeAdapter

from gmm_dask.errors import SettingsError
from gmm_dask.flows import announcing, deployable, deploying
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import load_settings, settings_from, with_overrides
from tests.flows.conftest import ROOT

IRIS, LABEL = ROOT / "config" / "iris.yaml", ROOT / "config" / "label.yaml"
TRIGGERS = re.findall(r"```yaml\n(triggers:.*?)```", (ROOT / "docs/prefect.md").read_text(), re.S)

PROCESSES = WorkPool(
    name="gmm", type="process", base_job_template=ProcessWorker.get_default_base_job_template()
)

FLOWS = [
    getattr(deployable, name) for name in ("cluster", "refresh", "label", "backfill", "compare")
]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_deployment_is_found_by_the_installed_package_alone(flow: Any) -> None:
    made = deploying._deployment(flow, "nightly", {}, deploying._schedule("0 3 * * *", "UTC"))
    assert load_flow_from_entrypoint(made.entrypoint) is flow
    assert made.full_name == f"{flow.name}/nightly"
    (schedule,) = made.schedules
    assert schedule.schedule.cron == "0 3 * * *"


@pytest.mark.parametrize(
    ("settings", "taken"),
    [(IRIS, ("cluster", "refresh", "compare")), (LABEL, ("label", "backfill"))],
)
def test_settings_are_deployed_as_flows_that_take_them(settings: Path, taken: Any) -> None:
    loaded = load_settings(settings, schema=None)
    assert deploying._flow_of(loaded, None).name == taken[0]
    for flow in FLOWS:
        if flow.name in taken:
            assert deploying._flow_of(loaded, flow.name) is flow
        else:
            with pytest.raises(SettingsError, match=f"one of {', '.join(taken)}"):
                deploying._flow_of(loaded, flow.name)
    with pytest.raises(SettingsError, match="leave out the cron"):
        deploying.deploy(LABEL, "gmm", flow="backfill", cron="0 3 * * *")


def test_what_is_deployed_passes_the_schema_that_the_server_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid in its short form and dates of YAML among them."""
    written = "data: {path: x, between: {day: [2026-11-01, 2026-11-30]}}\noutput: {path: y}\n"
    (tmp_path / "a.yaml").write_text(f"{written}fit: {{n_components: {{from: 1, to: 3}}}}\n")
    made: list[Any] = []
    monkeypatch.setattr(deploying, "check_server", lambda: "")
    monkeypatch.setattr(deploying, "_pool", lambda pool: PROCESSES)
    monkeypatch.setattr(RunnerDeployment, "apply", lambda self, **_: made.append(self))
    assert deploying.deploy(tmp_path / "a.yaml", "gmm") == "cluster/a"
    (deployment,) = made
    schema = deployment._parameter_openapi_schema.model_dump_for_openapi()
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(deployment.parameters, schema)
    settings = settings_from(deployment.parameters["settings"])
    assert settings.candidates == [(1, "full"), (2, "full"), (3, "full")]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image": "registry.example/gmm:1"}, "'gmm' of type process runs no images"),
        ({"cron": "0 3 * *"}, "is no schedule"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berln"}, "timezone 'Europe/Berln'"),
        ({"cron": "0 3 * * *", "timezone": "../UTC"}, "timezone '../UTC'"),
    ],
)
def test_what_a_deployment_cannot_have_is_refused_by_name(
    wrong: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploying, "check_server", lambda: "")
    monkeypatch.setattr(deploying, "_pool", lambda pool: PROCESSES)
    with pytest.raises(SettingsError, match=re.escape(said)):
        deploying.deploy(IRIS, "gmm", **wrong)


def test_every_flow_has_its_entry_in_a_checkout() -> None:
    for flow in FLOWS:
        assert (
            load_flow_from_entrypoint(f"{ROOT}/flows/{flow.name}.py:{flow.name}").name == flow.name
        )


def test_overrides_replace_what_they_name_and_leave_the_rest() -> None:
    settings = load_settings(IRIS)
    changed = with_overrides(settings, ["fit.n_components=4", "labels.enabled=false"])
    assert (changed.fit.n_components, changed.labels.enabled) == (4, False)
    document = settings.model_dump(mode="json", exclude_unset=True)
    document["fit"]["n_components"] = 4
    document["labels"]["enabled"] = False
    assert changed == settings_from(document)
    assert with_overrides(settings, []) == settings
    with pytest.raises(SettingsError, match="n_componentz"):
        with_overrides(settings, ["fit.n_componentz=4"])


def test_a_new_version_is_told_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any, Any]] = []
    monkeypatch.setattr(
        announcing,
        "emit_event",
        lambda name, resource, payload: told.append((name, resource, payload)),
    )
    settings = load_settings(IRIS, [f"output.path={tmp_path}", "fit.max_iter=2"])
    for _ in range(2):
        announcing.announce(run(settings))
    ((name, resource, payload),) = told
    assert name == "gmm_dask.version.published"
    assert resource["prefect.resource.id"] == f"gmm_dask.output.{tmp_path}"
    assert (payload["version"], payload["n_rows"], payload["n_components"]) == (1, 150, 3)


@pytest.mark.parametrize("example", TRIGGERS)
def test_the_triggers_of_the_page_are_what_prefect_takes(example: str) -> None:
    (trigger,) = yaml.safe_load(example)["triggers"]
    read = TypeAdapter(DeploymentEventTrigger).validate_python(trigger)
    assert read.enabled
    assert set(trigger) <= {*DeploymentEventTrigger.model_fields}


def test_the_automation_of_the_page_is_what_prefect_takes() -> None:
    (example,) = re.findall(r"```yaml\n(name:.*?)```", (ROOT / "docs/prefect.md").read_text(), re.S)
    read = AutomationCore.model_validate(yaml.safe_load(example))
    assert read.trigger.expect == {announcing.PUBLISHED}
    assert [*read.actions[0].parameters] == ["version"]
    assert read.actions[0].type == "run-deployment"


def test_the_page_has_a_trigger_for_each_event_to_act_on() -> None:
    assert [next(iter(yaml.safe_load(each)["triggers"]))["expect"] for each in TRIGGERS] == [
        [announcing.PUBLISHED],
        [announcing.PUBLISHED],
        [announcing.DRIFTED],
        ["flights.file.arrived"],
    ]


def test_the_page_names_what_the_template_of_kubernetes_has() -> None:
    views = Path(prefect.__file__).parent / "server/api/collections_data/views"
    known = json.loads((views / "aggregate-worker-metadata.json").read_text())
    template = known["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    page = (ROOT / "docs/prefect.md").read_text().partition("## On Kubernetes")[2]
    for name in ("memory_request", "memory_limit", "service_account_name", "env"):
        assert f"`{name}`" in page
        assert name in template["variables"]["properties"]
    job = template["job_configuration"]["job_manifest"]["spec"]
    assert f"`backoffLimit: {job['backoffLimit']}`" in page
    assert len(job["template"]["spec"]["containers"]) == 1
