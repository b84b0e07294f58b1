"""The flows that can be deployed, from any folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.utilities.annotations import opaque
from pydantic import Field

from gmm_dask.errors import DriftError, SettingsError
from gmm_dask.flows import tasks
from gmm_dask.flows.announcing import announce, announce_drift
from gmm_dask.flows.artifacts import show_comparison, show_fit, show_labels
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.settings import ScoreSettings, Settings, with_overrides

T = TypeVar("T")

OVERRIDES: Any = Field(
    default=None,
    description="Single settings that replace those above in this run, each as section.key=value, "
    "such as fit.n_components=4.",
)
KEY: Any = Field(description="Of the folders key=value of partitions, such as day.")
FIRST: Any = Field(description="The first value of the key to label, such as 2026-11-01.")
LAST: Any = Field(description="The last value.")
VERSION: Any = Field(description="Output folder, OUT@7 or OUT@champion.")
AGAINST: Any = Field(
    default=None,
    description="The version to compare it with; where not given, the one that it follows.",
)


def _named(name: Callable[[Any], str]) -> Callable[[], str]:
    """The name of a flow run, made from the settings as they are after overrides."""

    def of_this_run() -> str:
        given = flow_run.parameters
        try:
            return name(with_overrides(given["settings"], given.get("overrides") or ()))
        except SettingsError:  # which the run itself will tell
            return name(given["settings"])

    return of_this_run


@flow(
    name="cluster",
    flow_run_name=_named(
        lambda settings: f"{settings.data.in_short}, n_components {settings.in_short}"
    ),
    persist_result=False,
)
def cluster(settings: Settings, overrides: list[str] | None = OVERRIDES) -> State[Any]:
    """Fit a Gaussian mixture to Parquet data, label every row and publish both as one version.

    Called directly it returns the Published record, or raises the error the run failed with.
    """
    return _ended(_cluster, settings, overrides)


@flow(
    name="label",
    flow_run_name=_named(
        lambda settings: f"{settings.data.in_short} by the model of {settings.model}"
    ),
    persist_result=False,
)
def label(settings: ScoreSettings, overrides: list[str] | None = OVERRIDES) -> State[Any]:
    """Label every row of Parquet data with a model that was published before.

    Called directly it returns the Published record, or raises the error the run failed with.
    """
    return _ended(_label, settings, overrides)


@flow(
    name="refresh",
    flow_run_name=_named(lambda settings: f"{settings.output.path} by {settings.data.in_short}"),
    persist_result=False,
)
def refresh(settings: Settings, overrides: list[str] | None = OVERRIDES) -> State[Any]:
    """Go on from the latest version: read new and changed partitions alone, drop what is gone.

    Called directly it returns the Published record, or raises the error the run failed with.
    """
    return _ended(_refresh, settings, overrides)


@flow(
    name="backfill",
    flow_run_name="{key} {first} to {last} by the model of {settings.model}",
    persist_result=False,
)
def backfill(
    key: str = KEY,
    first: str = FIRST,
    last: str = LAST,
    *,
    settings: ScoreSettings,
    overrides: list[str] | None = OVERRIDES,
) -> State[Any]:
    """Label a range of partitions with a model that was published before, as one version.

    Called directly it returns the Published record, or raises the error the run failed with.
    """
    ranged = (*(overrides or ()), f"data.between={json.dumps({key: [first, last]})}")
    return _ended(_label, settings, ranged)


@flow(name="compare", flow_run_name="{version}", persist_result=False)
def compare(version: str = VERSION, against: str | None = AGAINST) -> State[Any]:
    """Show two versions side by side: components, movers, criteria, drift.

    Called directly it returns the Comparison, or raises the error the run failed with.
    """
    try:
        found = tasks.compare(version, against)
    except tasks.EXPECTED as error:
        return tasks.failed(error)
    show_comparison(found)
    return tasks.compared(found)


def _ended(
    body: Callable[[Any], Published], settings: Any, overrides: Sequence[str] | None
) -> State[Any]:
    """The state that a flow ends in; what its version is about is told as events."""
    try:
        settings = with_overrides(settings, overrides or ())
        published = body(settings)
    except DriftError as error:
        announce_drift(settings.output.path, error)
        return tasks.failed(error)
    except tasks.EXPECTED as error:
        return tasks.failed(error)
    announce(published)
    return tasks.completed(published)


def _whole(value: T) -> T:
    """The argument of a task as it is: Prefect would look for futures in every field of a plan."""
    return cast(T, opaque(value))


def _cluster(settings: Settings) -> Published:
    job = tasks.plan(settings)
    if job.published is not None:
        known: Published = tasks.make_latest(_whole(job))
        show_fit(known)
        return known
    fitted = tasks.fit(_whole(job))
    labelled = tasks.label(_whole(job), _whole(fitted))
    published: Published = tasks.publish(_whole(job), _whole(fitted), _whole(labelled))
    show_fit(published, (job, fitted))
    return published


def _refresh(settings: Settings) -> Published:
    begun = tasks.plan_refresh(settings)
    if begun.job.published is not None:
        published: Published = tasks.make_latest(_whole(begun.job))
    else:
        done = tasks.refresh(_whole(begun))
        labelled = tasks.label_refreshed(_whole(begun), _whole(done))
        published = tasks.publish_refreshed(_whole(begun), _whole(done), _whole(labelled))
    show_fit(published)
    return published


def _label(settings: ScoreSettings) -> Published:
    job = tasks.plan(settings)
    if job.published is not None:
        published: Published = tasks.make_latest(_whole(job))
    else:
        checked = tasks.check(_whole(job))
        labelled = tasks.label(_whole(job), _whole(checked))
        published = tasks.publish(_whole(job), _whole(checked), _whole(labelled))
    show_labels(published)
    return published
