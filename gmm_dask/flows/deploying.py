"""Deploy a settings file as a flow that workers run from the installed package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    WorkPool,
)
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from gmm_dask.errors import SettingsError
from gmm_dask.flows.deployable import backfill, cluster, compare, label, refresh
from gmm_dask.flows.script import check_server
from gmm_dask.stage.settings import (
    AnySettings,
    ScoreSettings,
    load_settings,
)
from gmm_dask.words import short

MAX_SAID = 600  # characters of a refusal: the server repeats the whole schema

# Prefect sends no usage data from the runs.
ENVIRONMENT = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

# A run that is asked for by hand waits for the nightly one, and the nightly one for it.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def deploy(
    settings_file: str | Path,
    pool: str,
    *,
    name: str | None = None,
    cron: str | None = None,
    timezone: str = "UTC",
    image: str | None = None,
    overrides: Sequence[str] = (),
    flow: str | None = None,
) -> str:
    """Create or replace the deployment of a settings file; its name, as `deployment run` takes it.

    Workers of a process pool run it in the folder that this is called from, so that relative paths
    mean what they mean here; those of other pools in the folder that their image says.

    Parameters
    ----------
    settings_file : str or Path
        Settings of a fit for a deployment of `cluster`, settings with a model for one of `label`.
    pool : str
        An existing work pool.
    name : str, optional
        Name of the deployment; the name of the settings file where not given.
    cron, timezone : str
        When it runs by itself; never where no cron is given.
    image : str, optional
        Container image that has this package, for work pools that run containers.
    overrides : sequence of str
        As `--set` takes them; they become part of the deployment.
    flow : {"cluster", "label", "refresh", "backfill", "compare"}, optional
        Flow to deploy. Settings of a fit also go with `refresh` and with `compare`, which compares
        the latest version with the version it follows; settings with a model also go with
        `backfill`, which asks for the range when it is run.

    Raises
    ------
    SettingsError
        The settings, the cron or the pool are none that can be deployed.
    ServerError
        No Prefect server answers.
    """
    path = Path(settings_file)
    loaded = load_settings(path, overrides, schema=None)
    document = loaded.model_dump(mode="json", exclude_unset=True)  # the server knows no short forms
    chosen = _flow_of(loaded, flow)
    if chosen is backfill and cron is not None:
        raise SettingsError("A backfill is asked for with its range: leave out the cron.")
    of_versions = {"version": loaded.output.path}
    parameters = of_versions if chosen is compare else {"settings": document}
    deployment = _deployment(chosen, name or path.stem, parameters, _schedule(cron, timezone))
    check_server()
    if _that_runs(image, _pool(pool)).type == "process":
        deployment.storage = LocalStorage(str(Path.cwd()))
    try:
        deployment.apply(work_pool_name=pool, image=image)
    except (DeploymentApplyError, ValueError) as error:
        said = short(str(error), MAX_SAID)
        raise SettingsError(f"The deployment is refused: {said}") from error
    return deployment.full_name


OF_A_FIT = {each.name: each for each in (cluster, refresh, compare)}
OF_LABELS = {each.name: each for each in (label, backfill)}


def _flow_of(settings: AnySettings, name: str | None) -> Flow[Any, Any]:
    """The flow of that name, or the first that takes the settings."""
    labels = isinstance(settings, ScoreSettings)
    taken = OF_LABELS if labels else OF_A_FIT
    if name is not None and name not in taken:
        kind = "Settings that name a model" if labels else "Settings of a fit"
        raise SettingsError(f"flow {name!r}: {kind} are deployed as one of {', '.join(taken)}.")
    return taken[name or next(iter(taken))]


def _deployment(
    flow: Flow[Any, Any], name: str, parameters: dict[str, Any], schedule: Any
) -> RunnerDeployment:
    deployment = flow.to_deployment(
        name=name,
        schedule=schedule,
        parameters=parameters,
        description=(flow.description or "").partition("\n\n")[0],  # the rest is for callers
        tags=["gmm_dask"],
        job_variables={"env": dict(ENVIRONMENT)},
        concurrency_limit=ONE_AT_A_TIME,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast(RunnerDeployment, deployment)  # and no coroutine: nothing here is asynchronous


def _schedule(cron: str | None, timezone: str) -> Any:
    if cron is None:
        return None
    try:
        ZoneInfo(timezone)  # which Prefect looks at when the deployment is made
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise SettingsError(
            f"timezone {timezone!r} is none that is known here: give a name such as Europe/Berlin."
        ) from error
    try:
        return Cron(cron, timezone=timezone)
    except ValueError as error:
        raise SettingsError(f"cron {cron!r} in {timezone!r} is no schedule: {error}") from error


def _that_runs(image: str | None, pool: WorkPool) -> WorkPool:
    variables = pool.base_job_template.get("variables", {}).get("properties", {})
    if image is not None and "image" not in variables:
        raise SettingsError(
            f"Work pool {pool.name!r} of type {pool.type} runs no images: leave out the image, or "
            "name a pool of containers."
        )
    return pool


def _pool(pool: str) -> WorkPool:
    with get_client(sync_client=True) as client:
        try:
            return client.read_work_pool(pool)
        except ObjectNotFound:
            raise SettingsError(
                f"There is no work pool {pool!r}. Create it: "
                f"prefect work-pool create {pool} --type process"
            ) from None
